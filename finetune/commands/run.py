"""Trains an adapter, or goes on with a run:

    python -m finetune run conversations.jsonl
    python -m finetune run --config mine.yaml --set train.epochs=5 --run runs/mine

Everything is written into one folder; on a folder that holds a run it goes on from the last
checkpoint. Exit status 0 if it succeeded, 1 if data, model or settings were refused, 2 if there
was nothing to run, 75 if it was stopped by a signal and can go on, 70 if it crashed.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from pathlib import Path

from finetune import pipeline
from finetune.base_model import home
from finetune.commands.options import config_arguments, config_of, data_arguments
from finetune.config import FinetuneConfig
from finetune.errors import FinetuneError
from finetune.progress import ProgressView
from finetune.run_folder import new_folder

CRASHED = 70
"""Exit status after an error that is nobody's fault but the program's (`EX_SOFTWARE`)."""

NAME = "run"
SUMMARY = "train an adapter, or go on with a run"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    data_arguments(parser)
    config_arguments(parser)
    parser.add_argument("--run", type=Path, metavar="DIR", help="its folder; default: a new one")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(args: argparse.Namespace) -> int:
    """Run it, with live progress."""
    return run_config(config_of(args), args.run, as_json=args.json)


def run_config(config: FinetuneConfig, folder: Path | None, *, as_json: bool) -> int:
    """Run it, or go on with it; the exit status. Progress goes to standard error, the result to
    standard output. Raises RunConflict."""
    folder = folder or new_folder(home() / "runs", config.run_name)
    print(f"run: {folder}", file=sys.stderr)
    try:
        result = pipeline.run(config, folder, ProgressView())
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


def _report(result: pipeline.RunResult) -> str:
    summary = result.summary
    if summary.status == "interrupted":
        return f"interrupted after step {summary.steps}; go on with --run {result.folder}"
    if summary.error is not None:
        return f"failed ({summary.error.code}); see {result.folder / 'summary.json'}"
    done = "was done already" if result.already_done else f"steps: {summary.steps}"
    speed = summary.tokens_per_second or 0.0
    return f"adapter: {result.adapter}\n{done}, {speed:,.0f} tokens/s"
