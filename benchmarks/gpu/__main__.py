"""Measures what this machine's card can do, most valuable first:

    python -m benchmarks.gpu --out gpu-results --budget 20m
    python -m benchmarks.gpu --out gpu-results --steps ceilings,serving
    python -m benchmarks.gpu --out rehearsal --rehearse

Every step writes DIR/gpu-<step>.json when it ends; the same command again runs what is
missing. Exit status 0 when every step is ok or lacks something that it names, 1 when one
failed, was stopped or found no time, 2 when nothing could be run.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import configs
from benchmarks.gpu.config import GpuConfig
from benchmarks.gpu.page import render
from benchmarks.gpu.plan import clock, parse_budget, select
from benchmarks.gpu.plots import draw
from benchmarks.gpu.results import read_all
from benchmarks.gpu.runner import Runner
from configs import ConfigError, load

CONFIGS = Path(configs.__file__).parent / "bench"


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(words)
    path = args.config or CONFIGS / ("gpu-rehearse.yaml" if args.rehearse else "gpu.yaml")
    try:
        config = load(GpuConfig, path, args.set)
        steps = select(config.steps, args.steps)
        budget_s = parse_budget(args.budget)
        if args.list:
            for step in steps:
                needs = f", engines {', '.join(step.engines)}" if step.engines else ""
                took = f"about {clock(step.expect_s)}, at most {clock(step.limit_s)}"
                print(f"{step.name:<28}{took}{needs}")
            return 0
        signal.signal(signal.SIGTERM, _end)
        runner = Runner(config, args.out, budget_s, ["python", "-m", "benchmarks.gpu", *words])
        results = runner.run(steps)
    except ConfigError as exc:
        print(exc, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ended; the same command goes on from here", file=sys.stderr)
        return 130
    found = read_all(args.out)
    text = render(found, config.steps, rehearsal=config.rehearsal)
    notes = draw(found, args.out)
    (args.out / "summary.md").write_text(text + "".join(f"\n{note}\n" for note in notes))
    print(f"\n{text}\n", *notes, sep="\n")
    print(f"results, plots and summary.md: {args.out}")
    return 0 if all(result["status"] in ("ok", "missing") for result in results) else 1


def _end(*_: object) -> NoReturn:
    """Leave by an exception, so that everything that was started is ended."""
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="folder of results")
    parser.add_argument("--budget", default="20m", help="time for all steps: 600s, 20m, 1h")
    parser.add_argument("--steps", default="", metavar="A,B", help="only these; default: all")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on the CPU")
    parser.add_argument("--list", action="store_true", help="say what there is to run, and end")
    parser.add_argument("--config", type=Path, help="default: configs/bench/gpu.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
