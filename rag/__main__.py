"""Documents as a knowledge base: bring them in, search them, ask them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from configs import ConfigError
from rag import query_command
from rag.errors import RagError
from rag.ingest import command as ingest

Register = Callable[["argparse._SubParsersAction[Any]"], None]
"""Adds one subcommand's parser and sets its `run` default: `(args) -> int`, the exit status."""

COMMANDS: tuple[Register, ...] = (ingest.register, query_command.register)


def main(argv: Sequence[str] | None = None, program: str = "python -m rag") -> int:
    """Run one command; its exit status: 0 done, 1 done in part, 2 not begun."""
    parser = argparse.ArgumentParser(
        program, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for register in COMMANDS:
        register(commands)
    args = parser.parse_args(argv)
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of the libraries below
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        return int(args.run(args))
    except (ConfigError, RagError) as exc:
        print(exc, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
