"""Compares two runs: the settings that differ, how their curves end, what they were measured at.

    python -m finetune compare mine-1 mine-2
    python -m finetune compare runs/a runs/b --json

The difference is B less A. Which is better is said by the first metric that the gate asks for,
and where nothing was evaluated by the lowest validation loss. Runs on other data are not
comparable, and it says so.
"""

from __future__ import annotations

import argparse
import json
import sys

from finetune.commands.table import number, table
from finetune.comparison import Comparison, compare
from finetune.runs import find_run

NAME = "compare"
SUMMARY = "two runs: settings, curves, metrics, which is better"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("a", metavar="A", help="a run's folder, or its name")
    parser.add_argument("b", metavar="B", help="another")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the comparison."""
    found = compare(find_run(args.a), find_run(args.b))
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(json.dumps(found.as_json(), ensure_ascii=False) if args.json else _as_text(found))
    return 0


def _as_text(found: Comparison) -> str:
    head = ["", "A", "B"]
    parts = [table([head, ["folder", str(found.a), str(found.b)]])]
    if found.settings:
        rows = [[name, number(a), number(b)] for name, (a, b) in found.settings.items()]
        parts.append(table([["setting", "A", "B"], *rows]))
    else:
        parts.append("the settings are the same")
    for title, figures in (("figure", found.figures), ("evaluation", found.metrics)):
        if figures:
            rows = [
                [each.name, number(each.a), number(each.b), number(each.difference)]
                for each in figures
            ]
            parts.append(table([[title, "A", "B", "B - A"], *rows], right=[1, 2, 3]))
    parts.append(found.verdict)
    return "\n\n".join(parts)
