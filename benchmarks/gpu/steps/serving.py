"""Output tokens a second, TTFT and TPOT through corral and through vLLM's own server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal
from zlib import crc32

from pydantic import Field

from benchmarks.gpu.context import Address, Context
from benchmarks.gpu.limits import prefill_s, request_tokens_s
from benchmarks.gpu.steps.levels import METHOD, Level, check, row, run_level, workload_of
from benchmarks.load import LoadResult
from benchmarks.statistics import ratio
from configs import StrictModel

__all__ = ["ServingConfig", "run"]


class ServingConfig(StrictModel):
    """A saturation curve, of every engine that the step names, in turn at every level."""

    kind: Literal["serving"] = "serving"
    input_tokens: int = Field(1000, ge=1)
    output_tokens: int = Field(1000, ge=2)
    levels: tuple[Level, ...] = Field(min_length=1)
    seed: int = 1


def run(config: ServingConfig, context: Context) -> dict[str, Any]:
    """One row for every level and engine; what an interrupted run had measured is kept."""
    kept = {entry["max_concurrency"]: entry for entry in context.partial.get("levels", ())}
    levels: list[dict[str, Any]] = []
    result = {
        "method": METHOD,
        "input_tokens": config.input_tokens,
        "output_tokens": config.output_tokens,
        "levels": levels,
    }
    for place, level in enumerate(config.levels):
        if level.streams in kept:
            levels.append(kept[level.streams])
            continue
        entry = _level(config, context, level, place)
        check(entry["rows"])
        levels.append(entry)
        context.save(result)
    return result


def _level(config: ServingConfig, context: Context, level: Level, place: int) -> dict[str, Any]:
    loads: dict[str, list[LoadResult]] = {engine.name: [] for engine in context.engines}
    for round_ in range(level.rounds):
        for engine in _turned(context.engines, place + round_):
            seed = crc32(f"{config.seed}/{place}/{round_}/{engine.name}".encode())
            workload = workload_of(context, config.input_tokens, seed)
            done = run_level(engine, level, workload, config.output_tokens, round_)
            loads[engine.name].append(done.load)
            rate = f"{done.load.output_throughput:,.1f} tokens/s"
            context.say(f"{level.streams} streams, {engine.name}: {rate}")
    limit = request_tokens_s(
        context.model.shape, context.card, level.streams, config.input_tokens, config.output_tokens
    )
    rows = [row(engine, loads[engine.name]) for engine in context.engines]
    for entry in rows:
        entry["of_limit"] = entry["output_throughput"] / limit
    return {
        "max_concurrency": level.streams,
        "limit_tokens_s": limit,
        "limit_measured": context.card.measured,
        "ttft_floor_ms": 1e3 * prefill_s(context.model.shape, context.card, config.input_tokens),
        "ratio": _ratio(context.engines, loads),
        "rows": rows,
    }


def _turned(engines: Sequence[Address], by: int) -> list[Address]:
    turn = by % len(engines)
    return [*engines[turn:], *engines[:turn]]


def _ratio(
    engines: Sequence[Address], loads: dict[str, list[LoadResult]]
) -> dict[str, float] | None:
    """Tokens a second of the first engine over those of the second."""
    if len(engines) < 2:
        return None
    first, second = ([x.output_throughput for x in loads[e.name]] for e in engines[:2])
    return asdict(ratio(first, second))
