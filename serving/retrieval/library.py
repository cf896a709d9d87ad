"""The open index with its embedder: what the worker writes to and searches read.

Imported when a store is first used: this is what loads the index's engine and the tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rag.index.manifest import Manifest
from rag.index.open import open_index
from rag.ingest.ledger import Ledger
from rag.protocols import Embedder, Reranker
from rag.retrieve.config import FusionConfig, RetrieveConfig
from rag.retrieve.pack import with_parents
from rag.retrieve.retriever import Retriever
from rag.split.config import SplitConfig
from rag.split.splitter import Splitter
from rag.types import Chunk, Filter, Hit, Scalar, Scope
from serving.retrieval.config import RetrievalConfig

_SPARE = 10
"""Found beyond what was asked for, in place of what turns out to be removed."""


@dataclass(frozen=True)
class Search:
    """What is looked for."""

    queries: Sequence[str]
    filter: Filter | None = None
    limit: int = 10
    least_score: float = 0.0
    rerank: bool = True
    """By the model that is configured for it, if one is."""
    weights: tuple[float, float] | None = None
    """Of the dense list and of the text list; None: as configured."""


class Library:
    """Safe to use from threads, but for what takes the ledger: one at a time writes."""

    def __init__(
        self,
        config: RetrievalConfig,
        home: Path,
        embedder: Embedder,
        reranker: Reranker | None = None,
    ) -> None:
        """Open the index, or make it. Raises IndexUnavailable, IndexMismatch."""
        manifest = Manifest(
            embedder=embedder.name, dimension=embedder.dimension, bm25=config.index.bm25
        )
        self.config, self.embedder, self._reranker = config, embedder, reranker
        self.index = open_index(config.index, manifest, home)
        found = home / config.index.path
        if config.index.url is not None:
            found = home / "index" / config.index.collection
        self._ledger_path = found.with_name(f"{found.name}.ledger.db")

    def close(self) -> None:
        """Let go of the index."""
        self.index.close()

    def ledger(self, scope: Scope, *, write: bool = True) -> Ledger:
        """What a store's files became. Raises LedgerBusy, LedgerUnavailable."""
        return Ledger(self._ledger_path, scope, write=write)

    def splitter(self, chunking: Mapping[str, int] | None) -> Splitter:
        """By a file's own sizes, in the embedder's tokens. Larger passages than the embedder
        takes are embedded in pieces, and found whole."""
        config = self.config.split
        if chunking is not None:
            most = self.embedder.max_tokens
            asked, overlap = chunking["max_chunk_size_tokens"], chunking["chunk_overlap_tokens"]
            size = min(asked, most)
            config = SplitConfig(
                by=config.by,
                heading_context=config.heading_context,
                max_tokens=size,
                overlap_tokens=min(overlap, size // 2),
                parent_tokens=asked if asked > most else None,
            )
        return Splitter(config, self.embedder)

    def search(self, scope: Scope, wanted: Search) -> list[Hit]:
        """Passages, best first, with scores in [0, 1] where lists are fused: several queries'
        are each passage's best. Raises BadFilter, errors of index and embedder."""
        config = self._search_config(wanted)
        reranker = self._reranker if config.rerank != "none" else None
        retriever = Retriever(self.index, self.embedder, config, reranker=reranker)
        best: dict[str, Hit] = {}
        for query in wanted.queries:
            found = retriever.search(
                scope, query, filter=wanted.filter, limit=wanted.limit + _SPARE
            ).hits
            for hit in with_parents(found, scope, self.index):
                known = best.get(hit.chunk.id)
                if known is None or hit.score > known.score:
                    best[hit.chunk.id] = hit
        scale = _highest(config)
        hits = [Hit(hit.chunk, min(1.0, hit.score / scale)) for hit in best.values()]
        return sorted(hits, key=lambda hit: (-hit.score, hit.chunk.id))

    def passages(self, scope: Scope, uri: str) -> list[Chunk]:
        """A file's passages in order; of those in two sizes, the larger."""
        with self.ledger(scope, write=False) as ledger:
            ids = ledger.chunk_ids(uri)
        chunks = self.index.get(scope, ids)
        shown = [chunk for chunk in chunks if chunk.parent_id is None]
        return sorted(shown, key=lambda chunk: (chunk.uri, chunk.document_id, chunk.span))

    def describe(self, scope: Scope, uri: str, attributes: Mapping[str, Scalar] | None) -> None:
        """Replace the attributes of all of a file's passages."""
        with self.ledger(scope, write=False) as ledger:
            chunks = self.index.get(scope, ledger.chunk_ids(uri))
        wanted = dict(attributes or {})
        for id in {chunk.document_id for chunk in chunks if dict(chunk.metadata) != wanted}:
            self.index.set_metadata(scope, id, wanted)

    def remove(self, scope: Scope, uri: str) -> None:
        """Delete a file's passages."""
        with self.ledger(scope) as ledger:
            self.index.delete(scope, ledger.chunk_ids(uri))
            with ledger.transaction():
                ledger.forget(uri)

    def remove_store(self, scope: Scope) -> None:
        """Delete everything of one store."""
        with self.ledger(scope) as ledger:
            self.index.delete_store(scope)
            with ledger.transaction():
                for uri in ledger.known():
                    ledger.forget(uri)

    def _search_config(self, wanted: Search) -> RetrieveConfig:
        config = self.config.search
        changes: dict[str, object] = {"score_threshold": None}
        if wanted.weights is not None:
            dense, text = wanted.weights
            fusion = config.fusion.model_dump() | {"dense_weight": dense, "text_weight": text}
            changes |= {"fusion": FusionConfig(**fusion), "mode": "hybrid"}
        if wanted.rerank and self._reranker is not None:
            changes["rerank"] = "cross_encoder"
        return config.model_copy(update=changes)


def file_uri(file_id: str, filename: str) -> str:
    """How `rag` knows a file: by its id, and by its name, whose ending says its format."""
    return f"{file_id}/{filename}"


def file_of(chunk: Chunk) -> str:
    """The id of the file that a passage is from."""
    return chunk.uri.partition("/")[0]


def _highest(config: RetrieveConfig) -> float:
    """What a passage first in every list scores."""
    if config.rerank != "none" or config.mode != "hybrid":
        return 1.0
    total = config.fusion.dense_weight + config.fusion.text_weight
    return total if config.fusion.method == "dbsf" else total / (config.fusion.rrf_k + 1)
