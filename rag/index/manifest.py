"""What an index was made with. Vectors of another embedder, or weights of another BM25, would be
compared with meaningless scores, so a mismatch is refused when the index is opened."""

from __future__ import annotations

from typing import Literal

from configs import StrictModel
from rag.errors import IndexMismatch
from rag.index.config import Bm25Config

__all__ = ["Manifest"]


class Manifest(StrictModel):
    """Written when an index is made, compared when it is opened."""

    embedder: str
    dimension: int
    chunking: str | None = None
    """How documents were split, in one line. None: each document has its own."""
    distance: Literal["cosine"] = "cosine"
    bm25: Bm25Config = Bm25Config()
    version: Literal[1] = 1

    def check(self, wanted: Manifest, where: str) -> None:
        """Raise IndexMismatch, naming every difference and the mend, unless `wanted` may read and
        write what this index holds."""
        faults = [
            f"{name}: the index has {mine!r}, the configuration {theirs!r}"
            for name, mine, theirs in (
                ("embedder", self.embedder, wanted.embedder),
                ("dimension", self.dimension, wanted.dimension),
                ("chunking", self.chunking, wanted.chunking or self.chunking),
                ("distance", self.distance, wanted.distance),
                ("bm25", self.bm25.model_dump(), wanted.bm25.model_dump()),
            )
            if mine != theirs
        ]
        if faults:
            raise IndexMismatch(
                f"{where} was made otherwise than it is now used:\n  "
                + "\n  ".join(faults)
                + "\nSet the configuration back, or ingest into a new index (`index.path` or "
                "`index.collection`)."
            )
