"""One engine setting at saturation, and the best of all that were measured."""

from __future__ import annotations

from typing import Any, Literal

import yaml
from pydantic import Field

from benchmarks.gpu.context import Context, Missing
from benchmarks.gpu.limits import request_tokens_s
from benchmarks.gpu.results import read_all
from benchmarks.gpu.steps.levels import METHOD, Level, check, row, run_level, workload_of
from configs import StrictModel

__all__ = ["BestConfig", "VariantConfig", "choose", "run_best", "run_variant"]


class VariantConfig(StrictModel):
    """One engine, alone on the card, at one level."""

    kind: Literal["variant"] = "variant"
    settings: dict[str, Any] = Field(default_factory=dict)
    """What the engine was given, for the table and for the best configuration."""
    exact: bool = True
    """False where the setting changes what the model answers (fewer bits)."""
    weight_bytes: float = 2.0
    kv_bytes: float = 2.0
    input_tokens: int = Field(1000, ge=1)
    output_tokens: int = Field(1000, ge=2)
    level: Level
    seed: int = 5


class BestConfig(StrictModel):
    """The most tokens a second among variants whose TPOT stays below a bound."""

    kind: Literal["best"] = "best"
    tpot_ms: float = Field(50.0, gt=0)
    """Bound of the median time per output token."""
    file: str = "best.yaml"


def run_variant(config: VariantConfig, context: Context) -> dict[str, Any]:
    """The row of this engine, with the limit for its sizes."""
    engine = context.engines[0]
    workload = workload_of(context, config.input_tokens, config.seed)
    found = row(engine, [run_level(engine, config.level, workload, config.output_tokens).load])
    check([found])
    limit = request_tokens_s(
        context.model.shape, context.card, config.level.streams, config.input_tokens,
        config.output_tokens, weight=config.weight_bytes, kv=config.kv_bytes,
    )  # fmt: skip
    found["of_limit"] = found["output_throughput"] / limit
    return {
        "method": METHOD,
        "settings": config.settings,
        "exact": config.exact,
        "limit_tokens_s": limit,
        "row": found,
    }


def run_best(config: BestConfig, context: Context) -> dict[str, Any]:
    """Compare the variants measured so far, and write the best as part of a serve file."""
    variants = {
        name: found["result"]
        for name, found in read_all(context.out).items()
        if found["kind"] == "variant" and found["status"] == "ok"
    }
    best = choose(variants, config.tpot_ms)
    exact = {name: found for name, found in variants.items() if found["exact"]}
    best_exact = choose(exact, config.tpot_ms) if exact else best
    fragment = {"engine": variants[best_exact]["settings"]}
    (context.out / config.file).write_text(
        f"# The best measured at {variants[best_exact]['row']['max_concurrency']} streams that "
        f"leaves the answers as they are ({best_exact}).\n"
        f"# The best of all: {best} {variants[best]['settings']}\n{yaml.safe_dump(fragment)}",
        encoding="utf-8",
    )
    return {
        "tpot_bound_ms": config.tpot_ms,
        "best": best,
        "best_exact": best_exact,
        "settings": variants[best_exact]["settings"],
        "compared": {name: _figures(found) for name, found in sorted(variants.items())},
    }


def choose(variants: dict[str, dict[str, Any]], tpot_ms: float) -> str:
    """The variant with the most tokens a second within the bound; without one, the least TPOT.

    Raises Missing when there is none to choose from.
    """
    if not variants:
        raise Missing("no variant has been measured in this folder; run the tuning steps before")
    within = {name: v for name, v in variants.items() if _figures(v)["tpot_ms"] <= tpot_ms}
    if not within:
        return min(variants, key=lambda name: _figures(variants[name])["tpot_ms"])
    return max(within, key=lambda name: _figures(within[name])["tokens_s"])


def _figures(variant: dict[str, Any]) -> dict[str, float]:
    found = variant["row"]
    median = found["tpot_ms"].get("median")
    return {
        "tokens_s": found["output_throughput"],
        "tpot_ms": float("inf") if median is None else median,
    }
