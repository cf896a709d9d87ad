"""Repeats the table of trainers:

    python -m benchmarks.finetune
    python -m benchmarks.finetune --gpu

Each side trains each case in a process of its own, in turn, round after round. Exit status 0
whatever the figures, unless `--enforce` is given and a bar is not met.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.finetune.compare import Row, markdown
from benchmarks.finetune.config import Case, FinetuneBenchConfig
from benchmarks.finetune.rows import write_rows
from benchmarks.finetune.sides import Figures, Job, Side, SideFailed, call
from benchmarks.report import command_line, environment, write
from configs import ConfigError, load

CONFIG = Path("configs/bench/finetune.yaml")
OUT = Path("benchmarks/results/finetune.json")
HELD_OUT = 24


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; the exit status."""
    args = _parser().parse_args(argv)
    try:
        config = load(FinetuneBenchConfig, args.config, args.set)
        where = environment(command_line())
        with tempfile.TemporaryDirectory(prefix="finetune-bench-") as folder:
            rows = [_case(case, config, Path(folder), gpu=args.gpu) for case in config.cases]
    except (ConfigError, SideFailed) as exc:
        print(exc, file=sys.stderr)
        return 2
    write(
        args.out,
        {
            **where,
            "benchmark": "finetune",
            "config": config.model_dump(mode="json"),
            "rows": [row.as_json(config.bar) for row in rows],
        },
    )
    print(f"\n{markdown(rows)}\n\n{args.out}")
    missed = any(row.met(config.bar) is False for row in rows)
    return 1 if args.enforce and missed else 0


def _case(case: Case, config: FinetuneBenchConfig, folder: Path, *, gpu: bool) -> Row:
    if case.device == "gpu" and not gpu:
        return Row(case, (), (), None)
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if case.device == "cpu" else {}
    peaks = call(["-m", "benchmarks.finetune.device"], config.timeout_s, hidden)
    if case.device == "gpu" and peaks["device"] != "cuda":
        raise SideFailed("--gpu was given, and torch finds no GPU")
    here = folder / case.name.replace(" ", "-").replace(",", "")
    here.mkdir()
    job = Job(
        case,
        config,
        _model(case, config, folder),
        write_rows(here / "train.jsonl", case.rows, seed=1),
        write_rows(here / "validation.jsonl", HELD_OUT, seed=2),
    )
    found: dict[Side, list[Figures]] = {"ours": [], "trl": []}
    for turn in range(config.rounds):
        order: tuple[Side, Side] = ("ours", "trl") if turn % 2 == 0 else ("trl", "ours")
        for side in order:
            figures = job.run(side, here / f"{side}-{turn}")
            found[side].append(figures)
            _say(
                f"{case.name}, round {turn + 1}, {side}: {figures.tokens_per_second:,.0f} tokens/s"
            )
    return Row(case, tuple(found["ours"]), tuple(found["trl"]), peaks[case.precision])


def _model(case: Case, config: FinetuneBenchConfig, folder: Path) -> Path:
    home = Path(os.environ.get("CORRAL_HOME") or "~/.corral").expanduser()
    prepared = home / "models"
    if case.model != "random-8b":
        found = prepared / case.model if (prepared / case.model).is_dir() else Path(case.model)
        if not found.is_dir():
            raise SideFailed(f"no model {case.model!r}: prepare it with `python -m serving.models`")
        return found
    target = folder / case.model
    if not target.exists():
        arguments: list[Any] = ["--write-8b", str(target), str(prepared / "smollm2-135m")]
        call(["-m", "benchmarks.finetune.device", *arguments], config.timeout_s, {})
    return target


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.finetune",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE")
    parser.add_argument("--out", type=Path, default=OUT, help="JSON file for the result")
    parser.add_argument("--gpu", action="store_true", help="run the cases that need one, too")
    parser.add_argument("--enforce", action="store_true", help="exit 1 unless every bar is met")
    return parser


if __name__ == "__main__":
    sys.exit(main())
