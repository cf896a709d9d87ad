"""`python -m finetune run`: one run with live progress."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

from finetune.base_model import home
from finetune.config import FinetuneConfig
from finetune.errors import FinetuneError
from finetune.pipeline import RunResult, run
from finetune.progress import ProgressView
from finetune.run_folder import new_folder

CRASHED = 70
"""Exit status after an error that is nobody's fault but the program's (`EX_SOFTWARE`)."""


def run_config(config: FinetuneConfig, folder: Path | None, *, as_json: bool) -> int:
    """Run it, or go on with it; the exit status. Progress goes to standard error, the result to
    standard output. Raises RunConflict."""
    # Read when torch is loaded: threads that wait on a busy machine sleep soon instead of spinning.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    folder = folder or new_folder(home() / "runs", config.run_name)
    print(f"run: {folder}", file=sys.stderr)
    try:
        result = run(config, folder, ProgressView())
    except FinetuneError:
        raise
    except Exception:
        traceback.print_exc()
        print(f"crashed; go on from the last checkpoint with --run {folder}", file=sys.stderr)
        return CRASHED
    if as_json:
        print(json.dumps(result.summary.model_dump(mode="json")))
    else:
        print(_report(result))
    return result.exit_status


def _report(result: RunResult) -> str:
    summary = result.summary
    if summary.status == "interrupted":
        return f"interrupted after step {summary.steps}; go on with --run {result.folder}"
    if summary.error is not None:
        return f"failed ({summary.error.code}); see {result.folder / 'summary.json'}"
    done = "was done already" if result.already_done else f"steps: {summary.steps}"
    speed = summary.tokens_per_second or 0.0
    return f"adapter: {result.adapter}\n{done}, {speed:,.0f} tokens/s"
