"""BM25 as sparse vectors: documents carry saturated, length-normalised term weights, the index
multiplies in the inverse document frequency. One of the two files that import qdrant_edge."""

from __future__ import annotations

from dataclasses import dataclass

from qdrant_edge import Bm25, SparseVector
from qdrant_edge import Bm25Config as EdgeBm25Config

from rag.errors import RagError
from rag.index.config import Bm25Config

__all__ = ["Sparse", "SparseEncoder"]


@dataclass(frozen=True, slots=True)
class Sparse:
    """Weights by term; terms are hashes."""

    indices: list[int]
    values: list[float]


class SparseEncoder:
    """Texts to term weights. Tokens are words, lower case, without stop words, stemmed."""

    def __init__(self, config: Bm25Config) -> None:
        try:
            self._model = Bm25(
                EdgeBm25Config(
                    k=config.k1,
                    b=config.b,
                    avg_len=config.average_tokens,
                    language=config.language,
                )
            )
        except ValueError as exc:
            raise RagError(f"index.bm25: {exc}") from exc

    def document(self, text: str) -> Sparse:
        """Weights of a chunk's terms."""
        return _sparse(self._model.embed_document(text))

    def query(self, text: str) -> Sparse:
        """1.0 for each different term."""
        return _sparse(self._model.embed_query(text))


def _sparse(vector: SparseVector) -> Sparse:
    return Sparse(vector.indices, vector.values)
