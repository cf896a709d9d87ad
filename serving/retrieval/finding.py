"""Passages of a store, with the files that they are from: only of files that may be shown now."""

from __future__ import annotations

from dataclasses import dataclass

from rag.types import Hit, Scope
from serving.retrieval.library import Search, file_of
from serving.retrieval.service import Retrieval
from serving.store.vector_rows import StoreFile, VectorStore


@dataclass(frozen=True)
class FoundPassage:
    """One result of a search."""

    hit: Hit
    file: StoreFile


def find(retrieval: Retrieval, store: VectorStore, wanted: Search) -> list[FoundPassage]:
    """The best first. Raises RagError, CorralError."""
    scope = Scope(store.tenant_id, store.id)
    hits = [
        hit for hit in retrieval.library().search(scope, wanted) if hit.score >= wanted.least_score
    ]
    shown = retrieval.files.searchable(store.id, list({file_of(hit.chunk) for hit in hits}))
    found = [
        FoundPassage(hit, file)
        for hit in hits
        if (file := shown.get(file_of(hit.chunk))) is not None
    ]
    return found[: wanted.limit]
