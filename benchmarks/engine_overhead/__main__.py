"""Output tokens a second through corral and through vLLM's own server:

    python -m benchmarks.engine_overhead --set rounds=5
    python -m benchmarks.engine_overhead --set neighbours=1   # with a core kept busy beside

Both are loaded, one generates at a time. Exit status 0 whatever the figures, unless
`--enforce` is given and the bar is not met.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, median

from benchmarks.engine_overhead.config import OverheadConfig, sides
from benchmarks.load import LoadSpec
from benchmarks.report import command_line, environment, table, write
from benchmarks.rounds import Measurement, run_rounds
from benchmarks.sides import SideError, start_sides
from benchmarks.statistics import percentile, ratio
from configs import ConfigError, load

CONFIG = Path("configs/bench/engine_overhead.yaml")
RESULTS = Path("benchmarks/results")


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    out = args.out or RESULTS / f"engine_overhead-{time.strftime('%Y%m%d-%H%M%S')}.json"
    where = environment(command_line())
    try:
        config = load(OverheadConfig, args.config, args.set)
        idle, runs = _run(config, out.parent / "logs")
    except (ConfigError, SideError) as exc:
        print(exc, file=sys.stderr)
        return 2
    idle_runs = [run for run in runs if not run.load.completed]
    if idle_runs:
        print(
            f"{len(idle_runs)} of {len(runs)} runs saw no answer end within the window: "
            "lower max_tokens or raise duration_s",
            file=sys.stderr,
        )
        return 1
    rates = {name: _rates(runs, name) for name in ("vllm", "corral")}
    share = ratio(rates["corral"], rates["vllm"])
    met = share.value >= config.bar
    result = {
        **where,
        "benchmark": "engine_overhead",
        "config": config.model_dump(mode="json"),
        "idle_cores": idle,
        "of_vllm": asdict(share),
        "bar": config.bar,
        "met": met,
        "runs": [{**asdict(run), "output_throughput": run.load.output_throughput} for run in runs],
    }
    write(out, result)
    print(f"\n{_markdown(runs, idle)}\n")
    verdict = "met" if met else "NOT MET"
    spread = f"[{share.low:.1%}, {share.high:.1%}]"
    print(f"corral reaches {share.value:.1%} {spread} of vLLM; wanted {config.bar:.0%}: {verdict}")
    print(out)
    return 1 if args.enforce and not met else 0


def _run(config: OverheadConfig, logs: Path) -> tuple[dict[str, float], list[Measurement]]:
    spec = LoadSpec(
        url="",
        model=config.model,
        streams=config.streams,
        max_tokens=config.max_tokens,
        warmup_s=config.warmup_s,
        duration_s=config.duration_s,
        ramp_s=1.0,
        timeout_s=120.0,
        body={"temperature": 0.0, "ignore_eos": True},
    )
    with start_sides(sides(config), logs) as started:
        for side in started:
            print(f"{side.name}: ready after {side.ready_s:.0f} s", file=sys.stderr, flush=True)
        idle = {side.name: side.idle_cpu_share(5.0) for side in started}
        with _neighbours(config.neighbours):
            return idle, run_rounds(started, spec, config.rounds, _progress)


@contextmanager
def _neighbours(count: int) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(count):
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(busy.wait)
            stack.callback(busy.kill)
        yield


def _progress(run: Measurement) -> None:
    fault = f", {run.load.failed} FAILED: {run.load.errors[0]}" if run.load.failed else ""
    rate = f"{run.load.output_throughput:.1f} tokens/s"
    print(f"round {run.round + 1} {run.side:<8}{rate}{fault}", file=sys.stderr, flush=True)


def _rates(runs: Sequence[Measurement], side: str) -> list[float]:
    return [run.load.output_throughput for run in runs if run.side == side]


def _markdown(runs: Sequence[Measurement], idle: dict[str, float]) -> str:
    columns = (
        "server",
        "tokens/s",
        "first chunk ms",
        "p99",
        "failed",
        "idle cores",
        "others' cores",
    )
    cells = []
    for side in idle:
        own = [run.load for run in runs if run.side == side]
        others = fmean(run.other_cores for run in runs if run.side == side)
        ttfts = [1e3 * ttft for load_ in own for ttft in load_.ttfts] or [float("nan")]
        cells.append(
            (
                side,
                f"{fmean(_rates(runs, side)):.1f}",
                f"{median(ttfts):.0f}",
                f"{percentile(ttfts, 0.99):.0f}",
                str(sum(load_.failed for load_ in own)),
                f"{idle[side]:.3f}",
                f"{others:.2f}",
            )
        )
    return table(columns, cells)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.engine_overhead",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    parser.add_argument("--enforce", action="store_true", help="exit 1 unless the bar is met")
    return parser


if __name__ == "__main__":
    sys.exit(main())
