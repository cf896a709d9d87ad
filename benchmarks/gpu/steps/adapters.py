"""Throughput kept when requests go to LoRA adapters instead of the base model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

from pydantic import Field

from benchmarks.gpu.context import Address, Context
from benchmarks.gpu.limits import lora_kept
from benchmarks.gpu.peft_files import write_adapters
from benchmarks.gpu.steps.http import post
from benchmarks.gpu.steps.levels import METHOD, Level, check, row, run_level, workload_of
from configs import StrictModel

__all__ = ["AdaptersConfig", "run"]


class Mix(StrictModel):
    """How many adapters, and how unevenly they are asked for."""

    adapters: int = Field(ge=1)
    zipf: float = Field(0.0, ge=0)
    """Exponent of their frequencies; 0 asks for all alike."""


class AdaptersConfig(StrictModel):
    """All mixes at one level, the base model before and after them."""

    kind: Literal["adapters"] = "adapters"
    mixes: tuple[Mix, ...] = Field(min_length=1)
    rank: int = Field(16, ge=1)
    input_tokens: int = Field(1000, ge=1)
    output_tokens: int = Field(1000, ge=2)
    level: Level
    seed: int = 2


def run(config: AdaptersConfig, context: Context) -> dict[str, Any]:
    """One row a mix, with the share of the base model's tokens a second that it keeps."""
    engine = context.engines[0]
    names = write_adapters(
        Path(engine.home) / "adapters",
        context.model.shape,
        context.model.path,
        config.rank,
        max(mix.adapters for mix in config.mixes),
    )
    models = [f"{engine.model}:{name}" for name in names]
    load_s = _load_all(context, engine, models)
    before = _measure(config, context, "before", (), 0.0)
    rows: list[dict[str, Any]] = []
    result: dict[str, Any] = {
        "method": METHOD,
        "rank": config.rank,
        "load_s": load_s,
        "base": [before],
        "rows": rows,
    }
    for mix in config.mixes:
        found = _measure(config, context, mix, tuple(models[: mix.adapters]), mix.zipf)
        rows.append({"adapters": mix.adapters, "zipf": mix.zipf, **found})
        context.save(result)
    result["base"] = [before, _measure(config, context, "after", (), 0.0)]
    base = sum(found["output_throughput"] for found in result["base"]) / 2
    for found in rows:
        distinct = min(found["adapters"], config.level.streams)
        step = config.level.streams / base
        shape, card = context.model.shape, context.card
        found["kept"] = found["output_throughput"] / base
        found["kept_limit"] = lora_kept(shape, card, step, distinct, config.rank)
    return result


def _measure(
    config: AdaptersConfig, context: Context, what: object, models: tuple[str, ...], zipf: float
) -> dict[str, Any]:
    engine = context.engines[0]
    seed = crc32(f"{config.seed}/{what}".encode())
    workload = workload_of(context, config.input_tokens, seed, models=models, zipf=zipf)
    done = run_level(engine, config.level, workload, config.output_tokens)
    context.say(f"{what}: {done.load.output_throughput:,.1f} tokens/s")
    found = row(engine, [done.load])
    check([found])
    return found


def _load_all(context: Context, engine: Address, models: list[str]) -> float:
    """Seconds of a first request to each, so that loading is not in what is measured after."""
    began = time.perf_counter()
    for model in models:
        body = {"model": model, "prompt": [context.model.first_id] * 8, "max_tokens": 1}
        post(f"{engine.url}/v1/completions", body, headers=engine.headers)
    context.say(f"{len(models)} adapters loaded")
    return time.perf_counter() - began
