"""Repeats the table of token paths:

    python -m benchmarks.dataplane
    python -m benchmarks.dataplane --lease-url http://127.0.0.1:8000 --set rounds=5

Starts every side once, then measures them in turn, round after round. Exit status 0
whatever the figures, unless `--enforce` is given and a bar is not met.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.dataplane.compare import as_json, check_bars, markdown, rows
from benchmarks.dataplane.config import DataplaneConfig
from benchmarks.load import LoadSpec
from benchmarks.report import command_line, environment, write
from benchmarks.rounds import Measurement, run_rounds
from benchmarks.sides import SideError, home_credentials, start_sides
from configs import ConfigError, load

CONFIG = Path("configs/bench/dataplane.yaml")
RESULTS = Path("benchmarks/results")


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    out = args.out or RESULTS / f"dataplane-{time.strftime('%Y%m%d-%H%M%S')}.json"
    try:
        config = _with_urls(load(DataplaneConfig, args.config, args.set), args)
        where = environment(command_line())
        runs = _run(config, out.parent / "logs")
    except (ConfigError, SideError) as exc:
        print(exc, file=sys.stderr)
        return 2
    found = rows(config, runs)
    bars = check_bars(config, found)
    write(
        out,
        {
            **where,
            "benchmark": "dataplane",
            "config": config.model_dump(mode="json"),
            **as_json(found, bars, runs),
        },
    )
    print(f"\n{markdown(found, bars)}\n\n{out}")
    return 1 if args.enforce and not all(bar.met for bar in bars) else 0


def _run(config: DataplaneConfig, logs: Path) -> dict[int, list[Measurement]]:
    runs: dict[int, list[Measurement]] = {}
    with start_sides(config.sides, logs) as sides:
        for side in sides:
            _say(f"{side.name}: {side.url} ready after {side.ready_s:.1f} s")
        for cell in config.cells:
            spec = LoadSpec(
                url="",
                model="",
                streams=cell.streams,
                max_tokens=config.chunks,
                warmup_s=cell.warmup_s,
                duration_s=cell.duration_s,
                ramp_s=config.chunks * config.interval_s,
            )
            runs[cell.streams] = run_rounds(sides, spec, config.rounds, _progress)
    return runs


def _progress(run: Measurement) -> None:
    load = run.load
    _say(
        f"round {run.round + 1}, {load.max_concurrency:>3} streams, {run.side:<16}"
        f"{load.chunk_throughput:>10,.0f} chunks/s"
        + (f", {load.failed} FAILED: {load.errors[0]}" if load.failed else "")
    )


def _with_urls(config: DataplaneConfig, args: argparse.Namespace) -> DataplaneConfig:
    if not args.lease_url:
        return config
    sides = [
        side.model_copy(update={"url": args.lease_url, "credentials": home_credentials()})
        if side.name == config.lease
        else side
        for side in config.sides
    ]
    return config.model_copy(update={"sides": tuple(sides)})


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.dataplane",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    parser.add_argument("--lease-url", help="measure this running stack, instead of starting one")
    parser.add_argument("--enforce", action="store_true", help="exit 1 unless every bar is met")
    return parser


if __name__ == "__main__":
    sys.exit(main())
