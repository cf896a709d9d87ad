"""Plots of the results: `gpu-<what>.png`. Without matplotlib a note says so, and that is all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["draw"]

Results = Mapping[str, dict[str, Any]]


def draw(found: Results, out: Path) -> list[str]:
    """Draw what there are results for; returns notes for the reader."""
    try:
        import matplotlib
    except ImportError:
        return ["No plots: matplotlib is not installed (pip install matplotlib)."]
    matplotlib.use("Agg")
    usable = {name: result for name, result in found.items() if result["status"] == "ok"}
    for name, result in usable.items():
        if result["kind"] == "serving":
            _serving(result["result"], out / f"gpu-{name}.png")
    training = {name: r["result"] for name, r in usable.items() if r["kind"] == "training"}
    if training:
        rates = {name: result["tokens_per_s"] for name, result in training.items()}
        limits = {name: result["limit_tokens_s"] for name, result in training.items()}
        _bars(rates, limits, "tokens/s", out / "gpu-training.png")
    variants = {name: r["result"] for name, r in usable.items() if r["kind"] == "variant"}
    if variants:
        rates = {name: result["row"]["output_throughput"] for name, result in variants.items()}
        limits = {name: result["limit_tokens_s"] for name, result in variants.items()}
        _bars(rates, limits, "output tokens/s", out / "gpu-tuning.png")
    return []


def _serving(result: dict[str, Any], path: Path) -> None:
    """Tokens a second and TPOT over streams, a line a side, the limit dashed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    rates, paces = figure.subplots(1, 2)
    levels = result["levels"]
    streams = [level["max_concurrency"] for level in levels]
    for place, row in enumerate(levels[0]["rows"]):
        rows = [level["rows"][place] for level in levels]
        rates.plot(streams, [r["output_throughput"] for r in rows], "o-", label=row["side"])
        paces.plot(streams, [r["tpot_ms"].get("median") for r in rows], "o-", label=row["side"])
    limits = [level["limit_tokens_s"] for level in levels]
    rates.plot(streams, limits, "k--", label="limit of the card")
    for axes, name in ((rates, "output tokens/s"), (paces, "median TPOT, ms")):
        axes.set_xscale("log", base=2)
        axes.set_xticks(streams, [str(count) for count in streams])
        axes.set_xlabel("streams")
        axes.set_ylabel(name)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(f"{result['input_tokens']} tokens in, {result['output_tokens']} out")
    figure.savefig(path, dpi=120)


def _bars(values: Mapping[str, float], limits: Mapping[str, float], label: str, path: Path) -> None:
    """A bar for each value, with a mark at its limit."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.5 * len(values) + 1.2), layout="constrained")
    axes = figure.subplots()
    names = list(values)
    axes.barh(names, list(values.values()))
    axes.plot([limits[name] for name in names], names, "k|", markersize=16, label="limit")
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.legend()
    figure.savefig(path, dpi=120)
