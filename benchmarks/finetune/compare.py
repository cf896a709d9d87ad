"""Rows of the table, from the figures of each round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from benchmarks.finetune.config import Case
from benchmarks.finetune.sides import Figures
from benchmarks.report import table
from benchmarks.statistics import Interval, ratio

_GIB = 1 << 30


@dataclass(frozen=True)
class Row:
    """One case."""

    case: Case
    ours: tuple[Figures, ...]
    trl: tuple[Figures, ...]
    """One of each a round; both empty where it was not run."""
    peak_flops: float | None
    """Of the device in the case's precision, measured."""

    @property
    def speed(self) -> Interval:
        """Our tokens a second over TRL's."""
        left, right = ([each.tokens_per_second for each in side] for side in (self.ours, self.trl))
        return ratio(left, right)

    def mfu(self, side: Sequence[Figures]) -> float:
        """Useful operations a second over the measured peak. Both sides do the same work."""
        flops = self.ours[0].flops_per_token if self.ours else None
        if not flops or not self.peak_flops:
            return math.nan
        return mean_of(side, "tokens_per_second") * flops / self.peak_flops

    def met(self, bar: float) -> bool | None:
        """Whether both bars are; None where it was not run."""
        if not self.ours:
            return None
        least = self.case.bar_tokens_per_second or 0.0
        return self.speed.value >= bar and mean_of(self.ours, "tokens_per_second") >= least

    def as_json(self, bar: float) -> dict[str, Any]:
        """Plain values."""
        found: dict[str, Any] = {"case": self.case.model_dump(), "met": self.met(bar)}
        if not self.ours:
            return found | {"status": "not run"}
        return found | {
            "status": "run",
            "speed_ratio": asdict(self.speed),
            "peak_flops": self.peak_flops,
            "mfu": {"ours": self.mfu(self.ours), "trl": self.mfu(self.trl)},
            "ours": [each.as_json() for each in self.ours],
            "trl": [each.as_json() for each in self.trl],
        }


def mean_of(side: Sequence[Figures], name: str) -> float:
    """Over the rounds."""
    return fmean(getattr(each, name) for each in side)


def markdown(rows: Sequence[Row]) -> str:
    """The table: two lines a case."""
    columns = (
        "case", "side", "tokens/s", "ratio", "padding", "packed", "peak GiB", "MFU", "held-out loss"
    )  # fmt: skip
    cells: list[list[str]] = []
    for row in rows:
        if not row.ours:
            cells.append([row.case.name, "not run", *[""] * 7])
            continue
        speed = row.speed
        shown = f"{speed.value:.2f} ({speed.low:.2f} to {speed.high:.2f})"
        for side, name, compared in ((row.ours, "ours", shown), (row.trl, "TRL", "1")):
            cells.append(
                [
                    row.case.name,
                    name,
                    f"{mean_of(side, 'tokens_per_second'):,.0f}",
                    compared,
                    f"{mean_of(side, 'padding_waste'):.1%}",
                    f"{mean_of(side, 'packing_efficiency'):.1%}",
                    f"{mean_of(side, 'peak_memory_bytes') / _GIB:.2f}",
                    f"{row.mfu(side):.1%}",
                    f"{mean_of(side, 'valid_loss'):.3f}",
                ]
            )
    return table(columns, cells)
