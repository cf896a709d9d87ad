"""From results to Markdown tables, one function a kind of step. Knows no files.

Each takes the steps of its kind by name, with None for those that have no result, and
says `not run yet` in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.report import table

__all__ = ["NOT_RUN", "SECTIONS", "Section"]

NOT_RUN = "not run yet"
Results = Mapping[str, dict[str, Any] | None]
Section = Callable[[Results], str]
Row = Sequence[str]


def _table(
    columns: Sequence[str], results: Results, rows: Callable[[str, dict[str, Any]], Sequence[Row]]
) -> str:
    lines: list[Row] = []
    for name, result in results.items():
        if result is None:
            lines.append([name, NOT_RUN, *[""] * (len(columns) - 2)])
        else:
            lines += rows(name, result)
    return table(columns, lines)


def _ceilings(results: Results) -> str:
    def rows(name: str, result: dict[str, Any]) -> Sequence[Row]:
        copy = result["copy"]
        found = [[f"copy, {copy['mib']} MiB", f"{copy['gb_s']:,.0f} GB/s"]]
        for row in result["matmul"]:
            rate = f"{row['tflop_s']:,.1f} TFLOP/s" if "tflop_s" in row else row["error"][:60]
            found.append([f"{row['type']}, {'×'.join(map(str, row['shape']))}", rate])
        return found

    return _table(("ceiling", "measured"), results, rows)


def _client(results: Results) -> str:
    def rows(name: str, result: dict[str, Any]) -> Sequence[Row]:
        return [
            [name, f"{result['ceiling_chunks_s']:,.0f}", f"{result['cpu_us_per_chunk']:.1f}"],
        ]

    return _table(("step", "chunks/s at one full core", "µs a chunk"), results, rows)


def _serving(results: Results) -> str:
    def rows(name: str, result: dict[str, Any]) -> Sequence[Row]:
        return [
            _serving_row(f"{result['input_tokens']}/{result['output_tokens']}", level, row)
            for level in result["levels"]
            for row in level["rows"]
        ]

    columns = (
        "in/out", "streams", "side", "tokens/s", "of limit", "of vLLM", "TTFT p50", "p90", "p99",
        "TPOT p50", "p90", "p99 ms",
    )  # fmt: skip
    return _table(columns, results, rows)


def _serving_row(lengths: str, level: dict[str, Any], row: dict[str, Any]) -> Row:
    ratio = level["ratio"]
    first = row is level["rows"][0] and ratio is not None and ratio["value"] is not None
    flag = "" if level["limit_measured"] else " (card's constants)"
    near = " *" if row["near_client_ceiling"] else ""
    return [
        lengths,
        str(level["max_concurrency"]),
        row["side"],
        f"{row['output_throughput']:,.0f}{near}",
        f"{row['of_limit']:.0%}{flag}",
        _interval(ratio) if ratio is not None and first else "",
        *(_ms(row["ttft_ms"], point) for point in ("median", "p90", "p99")),
        *(_ms(row["tpot_ms"], point) for point in ("median", "p90", "p99")),
    ]


def _interval(ratio: Mapping[str, float]) -> str:
    """The value, and its interval where more than one round was measured."""
    value = f"{ratio['value']:.1%}"
    same = ratio["low"] == ratio["high"]
    return value if same else f"{value} [{ratio['low']:.1%}, {ratio['high']:.1%}]"


def _adapters(results: Results) -> str:
    def rows(name: str, result: dict[str, Any]) -> Sequence[Row]:
        found: list[Row] = [
            ["base model", f"{row['output_throughput']:,.0f}", "", "", _ms(row["tpot_ms"])]
            for row in result["base"]
        ]
        for row in result["rows"]:
            how = f"Zipf {row['zipf']:g}" if row["zipf"] else "uniform"
            found.append(
                [
                    f"{row['adapters']} of rank {result['rank']}, {how}",
                    f"{row['output_throughput']:,.0f}",
                    f"{row['kept']:.1%}",
                    f"{row['kept_limit']:.1%}",
                    _ms(row["tpot_ms"]),
                ]
            )
        return found

    return _table(("adapters", "tokens/s", "kept", "at best", "TPOT ms"), results, rows)


def _training(results: Results) -> str:
    def rows(name: str, result: dict[str, Any]) -> Sequence[Row]:
        return [
            [
                name,
                f"{result['tokens_per_s']:,.0f}",
                f"{result['mfu']:.1%}",
                f"{result['tokens_per_s'] / result['limit_tokens_s']:.0%}",
                f"{result['peak_memory_gib']:.1f}",
                str(result["batch"]),
            ]
        ]

    columns = ("training", "tokens/s", "MFU", "of limit", "peak GiB", "sequences a step")
    return _table(columns, results, rows)


def _prefix(results: Results) -> str:
    def rows(name: str, result: dict[str, Any]) -> Sequence[Row]:
        return [
            [
                f"{row['input_tokens']} tokens, {row['side']}",
                _ms(row["cold_ttft_ms"]),
                _ms(row["hit_ttft_ms"]),
                f"{row['floor_ms']:.1f}",
            ]
            for row in result["rows"]
        ]

    return _table(("prompt", "TTFT cold", "with a hit", "floor, cold, ms"), results, rows)


def _sleep(results: Results) -> str:
    def rows(name: str, result: dict[str, Any]) -> Sequence[Row]:
        return [
            [
                f"level {row['level']}",
                f"{row['sleep_s']:.2f}",
                f"{row['wake_s']:.2f}",
                f"{row['first_token_s']:.2f}",
                f"{row['memory_awake']} → {row['memory_asleep']}",
            ]
            for row in result["rows"]
        ]

    return _table(("sleep", "to sleep s", "to wake s", "first token s", "memory"), results, rows)


def _cold_start(results: Results) -> str:
    def rows(name: str, result: dict[str, Any]) -> Sequence[Row]:
        found = []
        for row in result["rows"]:
            steps = ", ".join(f"{step} {at:.1f}" for step, at in row["steps"].items())
            first = row["first_token_s"]
            found.append(
                [row["side"], f"{row['ready_s']:.1f}", f"{first:.2f}" if first else "", steps]
            )
        return found

    return _table(("start of", "ready s", "first token s", "step ended at s"), results, rows)


def _embeddings(results: Results) -> str:
    def rows(name: str, result: dict[str, Any]) -> Sequence[Row]:
        return [
            [
                f"{row['batch']} × {row['words']} words, {row['clients']} clients",
                f"{row['texts_per_s']:,.0f}",
                f"{row['tokens_per_s']:,.0f}",
            ]
            for row in result["rows"]
        ]

    return _table(("request", "texts/s", "tokens/s"), results, rows)


def _variants(results: Results) -> str:
    def rows(name: str, result: dict[str, Any]) -> Sequence[Row]:
        row = result["row"]
        return [
            [
                name,
                f"{row['output_throughput']:,.0f}",
                f"{row['of_limit']:.0%}",
                _ms(row["ttft_ms"]),
                _ms(row["tpot_ms"]),
                "" if result["exact"] else "changes answers",
            ]
        ]

    columns = ("variant", "tokens/s", "of its limit", "TTFT ms", "TPOT ms", "")
    return _table(columns, results, rows)


def _best(results: Results) -> str:
    def rows(name: str, result: dict[str, Any]) -> Sequence[Row]:
        bound = f"TPOT at most {result['tpot_bound_ms']:g} ms"
        return [
            [f"best, {bound}", result["best"]],
            ["best that keeps the answers", f"{result['best_exact']} {result['settings']}"],
        ]

    return _table(("configuration", "found"), results, rows)


def _ms(points: Mapping[str, float], point: str = "median") -> str:
    value = points.get(point)
    return "" if value is None else f"{value:,.1f}"


SECTIONS: dict[str, tuple[str, Section]] = {
    "ceilings": ("Ceilings of the card", _ceilings),
    "serving": ("Generation: corral and vLLM's own server", _serving),
    "adapters": ("Adapters", _adapters),
    "training": ("LoRA training: plain transformers and PEFT", _training),
    "prefix_cache": ("Prefix cache", _prefix),
    "sleep": ("Sleep and wake", _sleep),
    "cold_start": ("Cold start", _cold_start),
    "embeddings": ("Embeddings", _embeddings),
    "variant": ("Engine settings at saturation", _variants),
    "best": ("Best configuration", _best),
    "client": ("The load client's own ceiling", _client),
}
"""Title and table of every kind of step, in the order of the page."""
