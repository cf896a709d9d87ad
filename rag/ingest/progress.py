"""How far an ingestion is."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Progress"]


@dataclass(slots=True)
class Progress:
    """Counts so far. The same object is updated throughout a run."""

    files_total: int = 0
    bytes_total: int = 0
    files_done: int = 0
    """Unchanged and failed ones included."""
    bytes_done: int = 0
    unchanged: int = 0
    failed: int = 0
    removed: int = 0
    documents: int = 0
    chunks: int = 0
    """Embedded and acknowledged by the index."""
    chunks_kept: int = 0
    """Of changed files, in the index already."""
    elapsed_s: float = 0.0
    stage_s: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("read", "parse", "split", "embed", "index"), 0.0)
    )
    """Time spent in each stage, summed over threads: together more than `elapsed_s`."""

    @property
    def files_per_s(self) -> float:
        return self.files_done / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def chunks_per_s(self) -> float:
        return self.chunks / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def eta_s(self) -> float | None:
        """By bytes where the listing has sizes, else by files; None before anything is done."""
        done, total = self.bytes_done, self.bytes_total
        if not total:
            done, total = self.files_done, self.files_total
        return None if not done else self.elapsed_s * max(0, total - done) / done
