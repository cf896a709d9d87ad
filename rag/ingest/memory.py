"""An index in memory, for tests and for measuring everything but the index."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence

from rag.types import Chunk, Hit, Query, Scope, Vectors

__all__ = ["MemoryIndex"]


class MemoryIndex:
    """Implements `VectorIndex`: exact search by cosine; no filters, no BM25, nothing durable."""

    def __init__(self) -> None:
        self._chunks: dict[Scope, dict[str, Chunk]] = {}
        self._vectors: dict[tuple[Scope, str], Vectors] = {}
        self._lock = threading.Lock()

    def upsert(self, scope: Scope, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """See `VectorIndex.upsert`."""
        embedded = [chunk for chunk in chunks if not chunk.is_parent]
        with self._lock:
            self._chunks.setdefault(scope, {}).update((chunk.id, chunk) for chunk in chunks)
            for chunk, vector in zip(embedded, vectors, strict=True):
                self._vectors[scope, chunk.id] = vector

    def delete(self, scope: Scope, chunk_ids: Collection[str]) -> None:
        """See `VectorIndex.delete`."""
        with self._lock:
            for one in chunk_ids:
                self._chunks.get(scope, {}).pop(one, None)
                self._vectors.pop((scope, one), None)

    def search(self, scope: Scope, query: Query) -> list[Hit]:
        """See `VectorIndex.search`; by `vector` only."""
        if query.vector is None or query.filter is not None:
            raise ValueError("MemoryIndex searches by vector, without filters")
        with self._lock:
            hits = [
                Hit(chunk, float(self._vectors[scope, one] @ query.vector))
                for one, chunk in self._chunks.get(scope, {}).items()
                if not chunk.is_parent
            ]
        return sorted(hits, key=lambda hit: (-hit.score, hit.chunk.id))[: query.limit]

    def get(self, scope: Scope, chunk_ids: Sequence[str]) -> list[Chunk]:
        """See `VectorIndex.get`."""
        with self._lock:
            here = self._chunks.get(scope, {})
            return [here[one] for one in chunk_ids if one in here]

    def ids(self, scope: Scope) -> Iterator[str]:
        """See `VectorIndex.ids`."""
        with self._lock:
            return iter(list(self._chunks.get(scope, {})))
