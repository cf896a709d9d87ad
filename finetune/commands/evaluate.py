"""Measures an adapter against the base model and the live version, and judges it:

    python -m finetune evaluate RUN
    python -m finetune evaluate ADAPTER --config mine.yaml --live CHAMPION --out report
    python -m finetune evaluate RUN --set evaluation.slices=[language]

A run brings its own configuration (unless --config is given), and its report is written into its
folder. Exit status 0 if the gate passed, 1 if it failed, 2 if something could not be read at all.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from configs import ConfigError, load
from finetune.commands.options import DEFAULT, config_path
from finetune.config import FinetuneConfig
from finetune.run_folder import RunFolder

NAME = "evaluate"
SUMMARY = "measure an adapter against base and live version, and judge it"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("target", type=Path, metavar="RUN_OR_ADAPTER", help="a folder")
    parser.add_argument("--config", help="a file, or a name in configs/finetune/")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE")
    parser.add_argument("--live", metavar="DIR", help="the adapter that is served now")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the report goes")
    parser.add_argument("--json", action="store_true", help="print evaluation.json")


def run(args: argparse.Namespace) -> int:
    """Evaluate, and print the verdict."""
    from finetune.evaluation import evaluate

    run_folder = RunFolder(args.target)
    is_run = run_folder.config.is_file()
    candidate = run_folder.adapter if is_run else args.target
    if not (candidate / "adapter_config.json").is_file():
        raise ConfigError(
            f"{candidate} has no adapter_config.json: name the folder of a finished run or of an "
            "adapter as PEFT saves it"
        )
    given = [f"evaluation.live_adapter={json.dumps(args.live)}"] if args.live else []
    path = run_folder.config if is_run and not args.config else config_path(args.config or DEFAULT)
    config = load(FinetuneConfig, path, [*given, *args.set])
    out = args.out or (args.target if is_run else Path("evaluation"))
    found = evaluate(config, out, candidate, say=_say)
    if args.json:
        print(json.dumps(found.as_json(), allow_nan=False))
    else:
        for each in found.gate.rules:
            print(f"{'passed' if each.passed else 'FAILED'}  {each.reason}")
        print(f"gate {'passed' if found.gate.passed else 'failed'}; report: {out / 'report.html'}")
    return 0 if found.gate.passed else 1


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
