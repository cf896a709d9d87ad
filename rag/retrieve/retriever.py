"""A question to passages: rewrite → search → fuse → rerank → thin out → expand → pack."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from rag.errors import RagError
from rag.protocols import Embedder, Generator, Message, Reranker, VectorIndex
from rag.retrieve.config import RetrieveConfig
from rag.retrieve.diversity import mmr, without_duplicates
from rag.retrieve.fusion import Ranked, fuse
from rag.retrieve.pack import Passage, pack, with_parents
from rag.retrieve.rewrite import Rewritten, rewrite
from rag.types import Filter, Hit, Query, Scope, Vectors

__all__ = ["Found", "Retriever", "Timings"]


@dataclass(slots=True)
class Timings:
    """Seconds of each part of one search."""

    rewrite_s: float = 0.0
    embed_s: float = 0.0
    search_s: float = 0.0
    rerank_s: float = 0.0

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Add the block's duration to `part`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, part, getattr(self, part) + time.perf_counter() - began)


@dataclass(frozen=True, slots=True)
class Found:
    """What a search gave."""

    hits: list[Hit]
    """Best first, before parents and packing."""
    query: Rewritten
    timings: Timings = field(default_factory=Timings)


class Retriever:
    """Searches one index with one configuration."""

    def __init__(
        self,
        index: VectorIndex,
        embedder: Embedder,
        config: RetrieveConfig,
        *,
        reranker: Reranker | None = None,
        generator: Generator | None = None,
    ) -> None:
        """Raises RagError if the configuration needs a reranker or generator that is missing."""
        wanted = config.rewrite
        if generator is None and (wanted.conversation or wanted.multi_query or wanted.hyde):
            raise RagError("retrieve.rewrite needs a language model, and none is configured")
        if reranker is None and config.rerank != "none":
            raise RagError(f"retrieve.rerank is {config.rerank!r}, and no reranker is configured")
        self.config = config
        self._index = index
        self._embedder = embedder
        self._reranker = reranker
        self._generator = generator

    def search(
        self,
        scope: Scope,
        question: str,
        *,
        filter: Filter | None = None,
        history: Sequence[Message] = (),
        limit: int | None = None,
    ) -> Found:
        """Hits of the scope, best first, at most `limit` (the configuration's if None)."""
        limit = self.config.limit if limit is None else limit
        timings = Timings()
        with timings.of("rewrite_s"):
            query = rewrite(question, self.config.rewrite, self._generator, history)
        lists = self._lists(scope, query, filter, timings)
        hits = lists[0].hits if len(lists) == 1 else fuse(lists, self.config.fusion)
        if self._reranker is not None and self.config.rerank != "none":
            with timings.of("rerank_s"):
                hits = self._reranked(self._reranker, query.question, hits)
        return Found(self._thinned(list(hits), limit), query, timings)

    def passages(self, scope: Scope, found: Found) -> list[Passage]:
        """What was found as numbered context for a prompt."""
        hits: list[Hit] = found.hits
        if self.config.expand_parents:
            hits = with_parents(hits, scope, self._index)
        return pack(hits, self.config, self._embedder)

    def _lists(
        self, scope: Scope, query: Rewritten, filter: Filter | None, timings: Timings
    ) -> list[Ranked]:
        config, texts = self.config, [query.question, *query.wordings]
        share = 1 / len(texts)
        lists: list[Ranked] = []
        asked = Query(
            text="", limit=config.candidates, filter=filter, with_vectors=self._needs_vectors
        )
        if config.mode != "text":
            with timings.of("embed_s"):
                vectors = self._query_vectors(texts, query.passage)
            with timings.of("search_s"):
                for vector in vectors:
                    weight = config.fusion.dense_weight * share
                    found = self._index.search(scope, replace(asked, text=None, vector=vector))
                    lists.append(Ranked(found, weight))
        if config.mode != "dense":
            with timings.of("search_s"):
                for text in texts:
                    weight = config.fusion.text_weight * share
                    found = self._index.search(scope, replace(asked, text=text))
                    lists.append(Ranked(found, weight))
        return lists

    def _query_vectors(self, texts: Sequence[str], passage: str | None) -> Vectors:
        """One a text; the question's is the mean of its own and the imagined passage's."""
        vectors = self._embedder.encode([self._fitting(text) for text in texts], "query")
        if passage is not None:
            [imagined] = self._embedder.encode([self._fitting(passage)], "document")
            mean = vectors[0] + imagined
            vectors[0] = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return vectors

    def _fitting(self, text: str) -> str:
        """The beginning of a question longer than the embedder takes."""
        [spans] = self._embedder.token_spans([text])
        limit = self._embedder.max_tokens
        return text if len(spans) <= limit else text[: int(spans[limit - 1][1])]

    @property
    def _needs_vectors(self) -> bool:
        return self.config.near_duplicate is not None or self.config.mmr_lambda is not None

    def _reranked(self, reranker: Reranker, question: str, hits: Sequence[Hit]) -> list[Hit]:
        """The first candidates by a weighted sum of both scores, each brought to [0, 1]."""
        weight = self.config.rerank_weight
        first = list(hits[: self.config.rerank_candidates])
        passages = [hit.chunk.text for hit in first]
        new = _scaled(reranker.score(self._fitting(question), passages))
        old = _scaled([hit.score for hit in first])
        mixed = [weight * n + (1 - weight) * o for n, o in zip(new, old, strict=True)]
        scored = [replace(hit, score=score) for hit, score in zip(first, mixed, strict=True)]
        return sorted(scored, key=lambda hit: -hit.score)

    def _thinned(self, hits: list[Hit], limit: int) -> list[Hit]:
        config = self.config
        if config.score_threshold is not None:
            hits = [hit for hit in hits if hit.score >= config.score_threshold]
        if config.near_duplicate is not None:
            enough = limit if config.mmr_lambda is None else len(hits)
            hits = without_duplicates(hits, config.near_duplicate, enough)
        if config.mmr_lambda is not None:
            return mmr(hits, limit, config.mmr_lambda)
        return hits[:limit]


def _scaled(scores: Sequence[float]) -> list[float]:
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    return [1.0 if high == low else (score - low) / (high - low) for score in scores]
