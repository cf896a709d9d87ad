"""`python -m serving.models [SOURCE ...]`: prepare models, by default the built-in ones."""

from __future__ import annotations

import sys

from serving.errors import ModelUnavailable
from serving.home import Home
from serving.models import BUILTINS, prepare


def main(sources: list[str]) -> int:
    """Prepare each source; the exit status says whether all are ready."""
    home = Home.from_env()
    for source in sources or list(BUILTINS):
        try:
            prepare(source, home, progress=lambda line: print(f"[models] {line}", flush=True))
        except ModelUnavailable as exc:
            print(f"[models] {exc}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
