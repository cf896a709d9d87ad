"""`DataplaneConfig`: one comparison of token paths."""

from __future__ import annotations

from pydantic import Field, model_validator

from benchmarks.sides import SideConfig
from configs import StrictModel

__all__ = ["Bars", "CellConfig", "DataplaneConfig"]


class CellConfig(StrictModel):
    """One column of the table: a number of streams."""

    streams: int = Field(ge=1)
    duration_s: float = Field(5.0, gt=0)
    """Measured in each round, after the warm-up."""
    warmup_s: float = Field(1.0, ge=0)


class Bars(StrictModel):
    """What the lease must reach."""

    of_direct: float = 0.85
    """Share of the direct path's chunks a second, with the most streams."""
    of_plain: float = 4.0
    """Multiple of the plain handle's chunks a second, with the most streams."""
    added_first_chunk_ms: float = 5.0
    """Median first chunk less the direct path's, with the fewest streams."""


class DataplaneConfig(StrictModel):
    """Sides, loads and bars. Every side answers `chunks` tokens, one each `interval_s`."""

    sides: tuple[SideConfig, ...]
    cells: tuple[CellConfig, ...] = Field(min_length=1)
    rounds: int = Field(3, ge=1)
    chunks: int = Field(64, ge=1)
    interval_s: float = Field(0.01, ge=0)
    direct: str = "direct"
    """Name of the side that the others are compared with."""
    lease: str = "lease"
    plain: str = "plain-handle"
    bars: Bars = Bars()

    @model_validator(mode="after")
    def _names(self) -> DataplaneConfig:
        names = [side.name for side in self.sides]
        if len(set(names)) != len(names):
            raise ValueError(f"sides need different names, not {', '.join(names)}")
        if self.direct not in names:
            raise ValueError(f"direct: no side is called {self.direct!r}")
        return self
