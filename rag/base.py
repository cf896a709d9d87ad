"""A knowledge base as its configuration describes it: embedder, index, retriever, opened once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from rag.config import RagConfig
from rag.embed.open import open_embedder
from rag.errors import RagError
from rag.generate import HttpGenerator
from rag.index.manifest import Manifest
from rag.index.open import StoredIndex, open_index
from rag.protocols import Embedder, Generator, Reranker, TokenVectors
from rag.retrieve.config import RetrieveConfig
from rag.retrieve.cross_encoder import HttpReranker
from rag.retrieve.maxsim import MaxSimReranker
from rag.retrieve.retriever import Retriever
from rag.split.splitter import Splitter

__all__ = ["KnowledgeBase", "opened"]


@dataclass(frozen=True, slots=True)
class KnowledgeBase:
    """What searches, answers and snapshots need."""

    config: RagConfig
    embedder: Embedder
    index: StoredIndex
    generator: Generator | None
    """None unless the configuration rewrites questions."""

    def retriever(self, config: RetrieveConfig | None = None) -> Retriever:
        """By the configuration's `retrieve`, or by another."""
        config = config or self.config.retrieve
        return Retriever(
            self.index,
            self.embedder,
            config,
            reranker=_reranker(config, self.embedder),
            generator=self.generator,
        )


@contextmanager
def opened(config: RagConfig, home: Path) -> Iterator[KnowledgeBase]:
    """Open everything, and close it again; `home` is `$CORRAL_HOME`. Raises RagError."""
    embedder = open_embedder(config.embed, home)
    manifest = Manifest(
        embedder=embedder.name,
        dimension=embedder.dimension,
        chunking=Splitter(config.split, embedder).fingerprint,
        bm25=config.index.bm25,
    )
    index = open_index(config.index, manifest, home)
    rewriting = config.retrieve.rewrite
    wanted = rewriting.conversation or rewriting.multi_query or rewriting.hyde
    generator = HttpGenerator(config.generate) if wanted else None
    try:
        yield KnowledgeBase(config, embedder, index, generator)
    finally:
        index.close()
        if generator is not None:
            generator.close()


def _reranker(config: RetrieveConfig, embedder: Embedder) -> Reranker | None:
    match config.rerank:
        case "none":
            return None
        case "maxsim":
            if not hasattr(embedder, "encode_tokens"):
                raise RagError(
                    f"retrieve.rerank: {embedder.name} gives no token vectors here, which MaxSim "
                    "needs: embed in this process (`embed.kind: sentence_transformers`)"
                )
            return MaxSimReranker(cast(TokenVectors, embedder))
        case "cross_encoder":
            return HttpReranker(config.cross_encoder)
