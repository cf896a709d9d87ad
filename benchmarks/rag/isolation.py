"""Random operations of several tenants on one index, each checked against a model of what its
scope holds: nobody ever sees, changes or removes what is another's.

    python -m benchmarks.rag isolation --operations 100000
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from rag.index.open import StoredIndex
from rag.types import AllOf, AnyOf, Chunk, Compare, Filter, Query, Scalar, Scope, Span, Vectors

__all__ = ["DIMENSION", "Leak", "RandomTenants"]

DIMENSION = 8
_WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
_SCOPES = [
    Scope(tenant, store)
    for tenant in ("a", "b", 'a","b', "")
    for store in ("x", "y")
]  # fmt: skip


class Leak(AssertionError):
    """A tenant saw or lost something that it should not have."""


@dataclass
class RandomTenants:
    """Runs operations; `step` raises Leak at the first wrong answer."""

    index: StoredIndex
    random: random.Random
    held: dict[Scope, dict[str, Chunk]] = field(
        default_factory=lambda: {scope: {} for scope in _SCOPES}
    )
    done: dict[str, int] = field(default_factory=dict)

    def run(self, operations: int) -> None:
        """That many operations."""
        for _ in range(operations):
            self.step()

    def step(self) -> None:
        """One operation of one tenant."""
        scope = self.random.choice(_SCOPES)
        operations: list[tuple[Callable[[Scope], None], int]] = [
            (self._upsert, 30), (self._delete, 15), (self._search, 35), (self._get, 8),
            (self._ids, 3), (self._metadata, 6), (self._count, 2), (self._delete_store, 1),
        ]  # fmt: skip
        chosen = self.random.choices([o for o, _ in operations], [w for _, w in operations])[0]
        chosen(scope)
        name = chosen.__name__.strip("_")
        self.done[name] = self.done.get(name, 0) + 1

    def _upsert(self, scope: Scope) -> None:
        # Few different chunks, so that tenants hold the same ids.
        chunks = [self._chunk() for _ in range(self.random.randint(1, 4))]
        unique = list({chunk.id: chunk for chunk in chunks}.values())
        vectors = [self._vector() for chunk in unique if not chunk.is_parent]
        self.index.upsert(scope, unique, _stacked(vectors))
        self.held[scope].update({chunk.id: chunk for chunk in unique})

    def _delete(self, scope: Scope) -> None:
        ids = self._some_ids()
        self.index.delete(scope, ids)
        for id in ids:
            self.held[scope].pop(id, None)

    def _delete_store(self, scope: Scope) -> None:
        self.index.delete_store(scope)
        self.held[scope].clear()

    def _metadata(self, scope: Scope) -> None:
        document, owner = self._document(), self.random.choice(_WORDS)
        self.index.set_metadata(scope, document, {"owner": owner})
        mine = self.held[scope]
        for id, chunk in mine.items():
            if chunk.document_id == document:
                mine[id] = replace(chunk, metadata={"owner": owner})

    def _search(self, scope: Scope) -> None:
        filter = self._filter(2) if self.random.random() < 0.6 else None
        if self.random.random() < 0.5:
            query = Query(vector=self._vector(), limit=200, filter=filter)
        else:
            text = " ".join(self.random.sample(_WORDS, 3))
            query = Query(text=text, limit=200, filter=filter)
        for hit in self.index.search(scope, query):
            self._mine(scope, hit.chunk)

    def _get(self, scope: Scope) -> None:
        ids = self._some_ids()
        got = self.index.get(scope, ids)
        for chunk in got:
            self._mine(scope, chunk)
        self._same(scope, {chunk.id for chunk in got}, set(ids) & set(self.held[scope]))

    def _ids(self, scope: Scope) -> None:
        self._same(scope, set(self.index.ids(scope)), set(self.held[scope]))

    def _count(self, scope: Scope) -> None:
        if self.index.count(scope) != len(self.held[scope]):
            raise Leak(f"{scope} counts what is not there, or misses what is")

    def _mine(self, scope: Scope, chunk: Chunk) -> None:
        if self.held[scope].get(chunk.id) != chunk:
            raise Leak(f"{scope} saw {chunk}, which is not its own")

    def _same(self, scope: Scope, got: set[str], held: set[str]) -> None:
        if got != held:
            raise Leak(f"{scope} has {sorted(held)} and was shown {sorted(got)}")

    def _some_ids(self) -> list[str]:
        """Ids of any tenant's."""
        everyones = [id for mine in self.held.values() for id in mine]
        return self.random.sample(everyones, min(len(everyones), self.random.randint(1, 3)))

    def _chunk(self) -> Chunk:
        words = self.random.choice(_WORDS), self.random.choice(_WORDS)
        text = " ".join(words)
        metadata: dict[str, Scalar] = {"owner": words[0], "n": len(text)}
        parent = self.random.random() < 0.1
        return Chunk(
            self._document(), Span(0, len(text)), text, 0, is_parent=parent, metadata=metadata
        )

    def _document(self) -> str:
        return f"d{self.random.randint(0, 5)}"

    def _filter(self, depth: int) -> Filter:
        if depth and self.random.random() < 0.5:
            parts = tuple(self._filter(depth - 1) for _ in range(self.random.randint(1, 3)))
            return AllOf(parts) if self.random.random() < 0.5 else AnyOf(parts)
        key = self.random.choice(["owner", "n", "scope", "tenant", "store"])
        match self.random.choice(["eq", "ne", "in", "nin", "gte"]):
            case "eq":
                return Compare("eq", key, self.random.choice([*_WORDS, "a", '["b","x"]']))
            case "ne":
                return Compare("ne", key, self.random.choice([*_WORDS, "a"]))
            case "in":
                return Compare("in", key, tuple(self.random.sample(_WORDS, 3)))
            case "nin":
                return Compare("nin", key, tuple(self.random.sample(_WORDS, 3)))
            case _:
                return Compare("gte", key, self.random.randint(0, 20))

    def _vector(self) -> Vectors:
        row = np.array([self.random.gauss(0, 1) for _ in range(DIMENSION)], np.float32)
        return row / np.linalg.norm(row)


def _stacked(rows: list[Vectors]) -> Vectors:
    return np.stack(rows) if rows else np.zeros((0, DIMENSION), np.float32)
