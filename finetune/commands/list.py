"""Lists runs, newest first: state, step, losses, speed.

    python -m finetune list
    python -m finetune list --all --json
    python -m finetune list elsewhere/runs

A running run whose process is gone is shown as `killed`: run it again on its folder to go on.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from finetune.base_model import home
from finetune.commands.table import number, table
from finetune.runs import find_runs

NAME = "list"
SUMMARY = "runs, their state and losses"
_SHOWN = 20


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("folder", nargs="?", type=Path, help="default: $CORRAL_HOME/runs")
    parser.add_argument("--all", action="store_true", help=f"not only the newest {_SHOWN}")
    parser.add_argument("--json", action="store_true", help="print them as JSON")


def run(args: argparse.Namespace) -> int:
    """Print them."""
    folder = args.folder or home() / "runs"
    found = find_runs(folder)
    shown = found if args.all else found[:_SHOWN]
    if args.json:
        print(json.dumps([asdict(each) | {"folder": str(each.folder)} for each in shown]))
        return 0
    if not shown:
        print(f"no runs in {folder}: `python -m finetune run` makes one")
        return 0
    rows = [["run", "state", "step", "loss", "validation", "tokens/s", "precision", "gate"]]
    rows += [
        [
            str(each.folder.relative_to(folder)),
            each.state,
            f"{each.step}/{each.total_steps}" if each.total_steps else str(each.step),
            number(each.train_loss),
            number(each.valid_loss),
            number(each.tokens_per_second),
            each.precision or "–",
            each.gate or "–",
        ]
        for each in shown
    ]
    print(table(rows, right=[2, 3, 4, 5]))
    if len(shown) < len(found):
        print(f"and {len(found) - len(shown)} older ones: --all")
    return 0
