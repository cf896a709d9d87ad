"""Searches settings: several runs of one configuration, compared by validation loss.

    python -m finetune sweep --config mine.yaml
    python -m finetune sweep rows.jsonl --trials 20 \\
        --set 'sweep.space={train.learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true},
                            lora.rank: {choices: [8, 16, 32]}}'

The space is `sweep.space` of the configuration: for each setting `choices`, or `low` and `high`,
with `log` (equal chances for equal ratios) and `whole` (no fractions). Optuna proposes settings;
each trial is a run with a folder of its own, and is cut short if it does worse than the median of
the others (`sweep.prune`). A search that was stopped or killed goes on when it is started again
on its folder (--run), the trial under way from its last checkpoint; with more --trials it goes
further. best.json names the best run, whose adapter can be promoted like any other. Exit status
0 when all trials are done, 75 if it was stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from finetune.base_model import home
from finetune.commands.options import config_arguments, config_of, data_arguments
from finetune.commands.table import number, table
from finetune.run_folder import new_folder

NAME = "sweep"
SUMMARY = "search settings over several runs"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    data_arguments(parser)
    config_arguments(parser)
    parser.add_argument("--trials", type=int, metavar="N", help="runs; default: the config's")
    parser.add_argument("--run", type=Path, metavar="DIR", help="its folder; default: a new one")
    parser.add_argument("--json", action="store_true", help="print the trials as JSON")


def run(args: argparse.Namespace) -> int:
    """Search, and print all trials."""
    from finetune.sweep.study import BEST, sweep

    if args.trials is not None:
        args.set = [*args.set, f"sweep.trials={args.trials}"]
    config = config_of(args)
    folder = args.run or new_folder(home() / "runs", f"{config.run_name}-sweep")
    print(f"sweep: {folder}", file=sys.stderr)
    result = sweep(config, folder, lambda line: print(line, file=sys.stderr, flush=True))
    if args.json:
        print(json.dumps([asdict(trial) for trial in result.trials]))
    else:
        names = list(config.sweep.space)
        rows = [["trial", "state", "validation loss", *names]]
        rows += [
            [
                str(trial.number),
                trial.state,
                number(trial.valid_loss),
                *(number(trial.settings.get(name)) for name in names),
            ]
            for trial in result.trials
        ]
        print(table(rows, right=range(2, len(rows[0]))))
    if result.best is not None:
        print(f"best: {result.best.folder} ({folder / BEST})", file=sys.stderr)
    if result.interrupted:
        print(f"stopped; go on with --run {folder}", file=sys.stderr)
    return 75 if result.interrupted else 0
