"""One load against one engine at one number of streams: what every serving step shares.

A closed loop in steady state within a fixed time: the streams' first answers are cut to
i/n of their length, so that the streams stand evenly along their answers; a warm-up is
discarded; answers that run when the window ends count for the part inside, and are
hung up on. Prompts are random token ids, never the same twice.
"""

from __future__ import annotations

from dataclasses import asdict
from statistics import fmean
from typing import Any

from pydantic import Field

from benchmarks.gpu.context import Address, Context, StepFailed
from benchmarks.load import LoadResult, LoadSpec
from benchmarks.rounds import Measurement, measure
from benchmarks.statistics import percentile
from benchmarks.workload import TokenWorkload
from configs import StrictModel

__all__ = ["METHOD", "Level", "check", "row", "run_level"]

METHOD = (
    "closed loop in steady state: first answers cut to i/n of their length, warm-up discarded, "
    "tokens and answers counted within the window, running answers hung up on at its end; "
    "greedy, ignore_eos; prompts of random token ids, never the same twice"
)
NEAR_CEILING = 0.9
"""Share of the client's own ceiling from which a result may be the client's."""


class Level(StrictModel):
    """One point of a saturation curve."""

    streams: int = Field(ge=1)
    warmup_s: float = Field(ge=0)
    window_s: float = Field(gt=0)
    rounds: int = Field(1, ge=1)
    """Windows; with more than one, ratios between engines come with an interval."""


def run_level(
    engine: Address, level: Level, workload: TokenWorkload, max_tokens: int, round_: int = 0
) -> Measurement:
    """Measure once. The workload's seed must be a new one each time."""
    spec = LoadSpec(
        url=engine.url,
        model=engine.model,
        headers=engine.headers,
        streams=level.streams,
        max_tokens=max_tokens,
        warmup_s=level.warmup_s,
        duration_s=level.window_s,
        ramp_s=min(2.0, level.warmup_s / 2),
        timeout_s=60.0,
        body={"temperature": 0.0, "ignore_eos": True},
        tokens=workload,
        spread=True,
        hang_up=True,
    )
    return measure(engine.as_side(), spec, round_)


def workload_of(context: Context, input_tokens: int, seed: int, **more: Any) -> TokenWorkload:
    """Prompts for this model, drawn from `seed`."""
    model = context.model
    return TokenWorkload(
        input_tokens=input_tokens,
        seed=seed,
        first_id=model.first_id,
        last_id=model.last_id,
        **more,
    )


def row(engine: Address, loads: list[LoadResult]) -> dict[str, Any]:
    """The windows of one engine at one level, as one row. Times in ms."""
    ttfts = [1e3 * ttft for load in loads for ttft in load.ttfts]
    rates = [load.output_throughput for load in loads]
    share = max(load.chunk_throughput / (load.client_ceiling or 1.0) for load in loads)
    return {
        "engine": engine.name,
        "side": engine.side,
        "max_concurrency": loads[0].max_concurrency,
        "output_throughput": fmean(rates),
        "rounds": rates,
        "ttft_ms": _points(ttfts),
        "tpot_ms": {
            name: fmean(load.tpots_ms[name] for load in loads if load.tpots_ms)
            for name in ("median", "p90", "p99")
            if any(load.tpots_ms for load in loads)
        },
        "completed": sum(load.completed for load in loads),
        "failed": sum(load.failed for load in loads),
        "errors": [error for load in loads for error in load.errors][:3],
        "tokens_per_chunk": loads[-1].tokens_per_chunk,
        "window_s": [load.duration for load in loads],
        "client_share": share,
        "near_client_ceiling": share > NEAR_CEILING,
        "chunk_gap_ms": asdict(loads[-1])["itls_ms"],
    }


def check(rows: list[dict[str, Any]]) -> None:
    """Raises StepFailed unless every row has tokens and no failed request."""
    for found in rows:
        where = f"{found['side']} at {found['max_concurrency']} streams"
        if found["failed"]:
            raise StepFailed(f"{where}: {found['failed']} requests failed: {found['errors'][0]}")
        if not found["output_throughput"]:
            raise StepFailed(f"{where}: no token came within the window; make it longer")


def _points(values: list[float]) -> dict[str, float]:
    if not values:
        return {"samples": 0}
    return {
        "median": percentile(values, 0.5),
        "p90": percentile(values, 0.9),
        "p99": percentile(values, 0.99),
        "samples": len(values),
    }
