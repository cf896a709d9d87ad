"""Looks through a job's data before it waits for hardware, in a process of its own:

    python -m serving.finetuning.check CONFIG

Prints one JSON object: `faults`, a list of `{source, row, field, reason}`, and `error`, set
where the data could not be read at all.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from configs import load
from finetune.config import FinetuneConfig
from finetune.data.check import check
from finetune.data.rows import Fault
from finetune.errors import FinetuneError


def main() -> int:
    """Exit status 0 in any case: what was found is in the output."""
    config = load(FinetuneConfig, sys.argv[1])
    faults: list[Fault] = []
    error: str | None = None
    try:
        faults = _faults(config)
    except FinetuneError as exc:
        error = str(exc)
    print(json.dumps({"faults": [asdict(fault) for fault in faults], "error": error}))
    return 0


def _faults(config: FinetuneConfig) -> list[Fault]:
    checked = check(config.data, _quiet)
    model = Path(config.model)
    wanted = "preference" if config.train.method == "dpo" else "supervised"
    if not checked.faults and checked.method != wanted:
        reason = f"holds {checked.method} data, and the job's method needs {wanted} data"
        return [Fault("training_file", 0, "", reason)]
    if checked.faults or not (model / "tokenizer.json").is_file():
        return list(checked.faults)
    from finetune.base_model import load_tokenizer
    from finetune.data.tokenise import tokenise

    return list(tokenise(config.data, load_tokenizer(config.data, model), _quiet).faults)


def _quiet(line: str) -> None:
    """Progress is nobody's here."""


if __name__ == "__main__":
    sys.exit(main())
