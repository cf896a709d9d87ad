"""TTFT of prompts that share their beginning with earlier ones, and of prompts that do not."""

from __future__ import annotations

import random
from statistics import median
from typing import Any, Literal

from pydantic import Field

from benchmarks.gpu.context import Context
from benchmarks.gpu.limits import prefill_s
from benchmarks.gpu.steps.http import first_token_s
from benchmarks.statistics import percentile
from configs import StrictModel

__all__ = ["PrefixConfig", "run"]


class PrefixConfig(StrictModel):
    """One request at a time, so that TTFT is the prefill and nothing else."""

    kind: Literal["prefix_cache"] = "prefix_cache"
    lengths: tuple[int, ...] = (1000, 4000)
    """Prompt lengths in tokens."""
    own_tokens: int = Field(32, ge=1)
    """The end of each prompt that is its own."""
    requests: int = Field(20, ge=2)
    seed: int = 3


def run(config: PrefixConfig, context: Context) -> dict[str, Any]:
    """Median and p90 of TTFT, cold and hit, for every engine and length. Times in ms."""
    draw = random.Random(config.seed)
    ids = range(context.model.first_id, context.model.last_id + 1)
    rows: list[dict[str, Any]] = []
    for engine in context.engines:
        for length in config.lengths:
            beginning = draw.choices(ids, k=length - config.own_tokens)

            def ttft(start: list[int], engine: Any = engine) -> float:
                prompt = start + draw.choices(ids, k=config.own_tokens)
                return 1e3 * first_token_s(engine.url, engine.model, prompt, engine.headers)

            ttft(beginning)  # fills the cache
            cold, hit = [], []
            for _ in range(config.requests):
                cold.append(ttft(draw.choices(ids, k=length - config.own_tokens)))
                hit.append(ttft(beginning))
            floor = 1e3 * prefill_s(context.model.shape, context.card, length)
            rows.append(
                {
                    "engine": engine.name,
                    "side": engine.side,
                    "input_tokens": length,
                    "cold_ttft_ms": {"median": median(cold), "p90": percentile(cold, 0.9)},
                    "hit_ttft_ms": {"median": median(hit), "p90": percentile(hit, 0.9)},
                    "floor_ms": floor,
                }
            )
            context.say(str(rows[-1]))
            context.save({"rows": rows})
    return {"method": "one request at a time, cold and hit in turn", "rows": rows}
