"""From measurements to the table, the ratios and the bars. Pure: no processes, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

from benchmarks.dataplane.config import DataplaneConfig
from benchmarks.report import table
from benchmarks.rounds import Measurement
from benchmarks.statistics import Interval, difference_of_medians, percentile, ratio

__all__ = ["Bar", "Row", "as_json", "check_bars", "markdown", "rows"]


@dataclass(frozen=True)
class Row:
    """One side at one number of streams, over all rounds."""

    side: str
    max_concurrency: int
    chunk_throughput: float
    """Token events a second, mean of the rounds."""
    median_ttft_ms: float
    p99_ttft_ms: float
    added_ttft_ms: Interval
    """Median first chunk less the direct side's."""
    of_direct: Interval
    """Share of the direct side's chunks a second."""
    of_plain: Interval
    server_cpu_us_per_chunk: float
    client_cpu_us_per_chunk: float
    other_cores: float
    """Cores that something else used meanwhile: what the figures were disturbed by."""
    client_ceiling: float
    """Chunks a second at which the client would fill its core."""
    completed: int
    failed: int
    merged: float
    """Token events that arrived in one piece, on average; 1 where each came alone."""


@dataclass(frozen=True)
class Bar:
    """One requirement and whether it was met."""

    name: str
    wanted: str
    got: Interval
    met: bool


def rows(config: DataplaneConfig, runs: Mapping[int, Sequence[Measurement]]) -> list[Row]:
    """One row for each side and number of streams; `runs` is keyed by streams."""
    return [
        _row(config, streams, side, measured)
        for streams, measured in runs.items()
        for side in dict.fromkeys(run.side for run in measured)
    ]


def _row(config: DataplaneConfig, streams: int, side: str, measured: Sequence[Measurement]) -> Row:
    own = [run for run in measured if run.side == side]
    rates, ttfts = _rates(measured, side), _ttfts_ms(measured, side)
    chunks = sum(run.load.chunks for run in own)
    client_s = sum(run.load.client_cpu_s for run in own)
    return Row(
        side=side,
        max_concurrency=streams,
        chunk_throughput=fmean(rates),
        median_ttft_ms=median(ttfts) if ttfts else float("nan"),
        p99_ttft_ms=percentile(ttfts, 0.99),
        added_ttft_ms=difference_of_medians(ttfts, _ttfts_ms(measured, config.direct)),
        of_direct=ratio(rates, _rates(measured, config.direct)),
        of_plain=ratio(rates, _rates(measured, config.plain)),
        server_cpu_us_per_chunk=1e6 * sum(run.server_cpu_s for run in own) / max(chunks, 1),
        other_cores=fmean(run.other_cores for run in own),
        client_cpu_us_per_chunk=1e6 * client_s / max(chunks, 1),
        client_ceiling=chunks / client_s if client_s else 0.0,
        completed=sum(run.load.completed for run in own),
        failed=sum(run.load.failed for run in own),
        merged=chunks / max(sum(run.load.reads for run in own), 1),
    )


def _rates(measured: Sequence[Measurement], side: str) -> list[float]:
    return [run.load.chunk_throughput for run in measured if run.side == side]


def _ttfts_ms(measured: Sequence[Measurement], side: str) -> list[float]:
    return [1e3 * ttft for run in measured if run.side == side for ttft in run.load.ttfts]


def check_bars(config: DataplaneConfig, all_rows: Sequence[Row]) -> list[Bar]:
    """The lease against the bars; none where the sides they need did not run."""
    own = [row for row in all_rows if row.side == config.lease]
    if not own:
        return []
    few = min(own, key=lambda row: row.max_concurrency)
    many = max(own, key=lambda row: row.max_concurrency)
    bars = config.bars
    found = [
        Bar(
            f"chunks/s at {many.max_concurrency} streams, of direct",
            f">= {bars.of_direct:.0%}",
            many.of_direct,
            many.of_direct.value >= bars.of_direct,
        ),
        Bar(
            f"first chunk at {few.max_concurrency} stream(s), added ms",
            f"<= {bars.added_first_chunk_ms:g}",
            few.added_ttft_ms,
            few.added_ttft_ms.value <= bars.added_first_chunk_ms,
        ),
    ]
    if any(row.side == config.plain for row in all_rows):
        name = f"chunks/s at {many.max_concurrency} streams, of the plain handle"
        met = many.of_plain.value >= bars.of_plain
        found.append(Bar(name, f">= {bars.of_plain:g}x", many.of_plain, met))
    return found


def markdown(all_rows: Sequence[Row], bars: Sequence[Bar]) -> str:
    """Both tables, ready to be pasted."""
    columns = (
        "path",
        "streams",
        "chunks/s",
        "of direct",
        "x plain",
        "first chunk ms",
        "p99",
        "added ms",
        "server µs/chunk",
        "client µs/chunk",
        "others' cores",
        "failed",
    )
    cells = [
        (
            row.side,
            str(row.max_concurrency),
            f"{row.chunk_throughput:,.0f}",
            f"{row.of_direct.value:.1%}",
            f"{row.of_plain.value:.2f}",
            f"{row.median_ttft_ms:.1f}",
            f"{row.p99_ttft_ms:.1f}",
            f"{row.added_ttft_ms.value:+.1f}",
            f"{row.server_cpu_us_per_chunk:.0f}",
            f"{row.client_cpu_us_per_chunk:.0f}",
            f"{row.other_cores:.2f}",
            str(row.failed),
        )
        for row in all_rows
    ]
    text = table(columns, cells)
    if bars:
        judged = [
            (
                bar.name,
                bar.wanted,
                f"{bar.got.value:.3g} [{bar.got.low:.3g}, {bar.got.high:.3g}]",
                "met" if bar.met else "NOT MET",
            )
            for bar in bars
        ]
        text += "\n\n" + table(("bar", "wanted", "got [95%]", ""), judged)
    return text


def as_json(
    all_rows: Sequence[Row], bars: Sequence[Bar], runs: Mapping[int, Sequence[Measurement]]
) -> dict[str, Any]:
    """Rows, bars and every single run, first-chunk times included."""
    return {
        "rows": [asdict(row) for row in all_rows],
        "bars": [asdict(bar) for bar in bars],
        "runs": [asdict(run) for measured in runs.values() for run in measured],
    }
