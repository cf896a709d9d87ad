"""Vector stores as a gateway has them: the tables behind its routes, the index once it is used."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from serving.config import FakeConfig, ModelConfig, VllmConfig
from serving.errors import PoolUnavailable
from serving.finetuning.settings import Settings
from serving.gateway.directory import Directory
from serving.gateway.exchange import Exchanger
from serving.gateway.metrics import GatewayMetrics
from serving.retrieval.replicas import Replicas
from serving.store.blobs import BlobStore
from serving.store.database import Store
from serving.store.vector_files import VectorFiles
from serving.store.vector_stores import VectorStores

if TYPE_CHECKING:
    from rag.protocols import Embedder, Tokens
    from serving.retrieval.library import Library
    from serving.retrieval.worker import Worker


class Retrieval:
    """One gateway process's vector stores. Its calls block, and may come from any thread."""

    def __init__(self, settings: Settings, store: Store, blobs: BlobStore) -> None:
        self.settings, self.store, self.blobs = settings, store, blobs
        self.config = settings.config.retrieval
        self.stores, self.files = VectorStores(store), VectorFiles(store)
        self.model = _embedding_model(settings)
        self._opening = threading.Lock()
        self._library: Library | None = None
        self._replicas: Replicas | None = None
        self._worker: Worker | None = None

    @property
    def fault(self) -> str | None:
        """Why there are no vector stores here; None if there are."""
        config = self.settings.config
        if not self.config.enabled:
            return "this stack has no vector stores: retrieval.enabled is off"
        if self.config.embed == "replica" and self.model is None:
            named = self.config.model
            why = "serves no embedding model" if named is None else f"serves no model {named!r}"
            return f"this stack {why}: add one to `models`, or set retrieval.model"
        reranker = self.config.rerank_model
        if reranker is not None and reranker not in [model.name for model in config.models]:
            return f"this stack serves no model {reranker!r}: correct retrieval.rerank_model"
        if config.gateway.replicas > 1 and self.config.index.url is None:
            return (
                "vector stores behind several gateway processes need a Qdrant server: "
                "set retrieval.index.url, or gateway.replicas to 1"
            )
        return None

    def library(self) -> Library:
        """The index, opened when first asked for. Raises RagError, PoolBusy, PoolUnavailable."""
        from serving.retrieval.library import Library
        from serving.retrieval.models import ReplicaReranker

        with self._opening:
            if self._library is None:
                replicas = self._replicas
                if replicas is None:
                    raise PoolUnavailable("this gateway starts, or ends")
                reranker = self.config.rerank_model
                self._library = Library(
                    self.config,
                    self.settings.home.root,
                    self._embedder(replicas),
                    None if reranker is None else ReplicaReranker(replicas, reranker),
                )
            return self._library

    def wake(self) -> None:
        """There is something to index, or to remove."""
        if self._worker is not None:
            self._worker.wake()

    @asynccontextmanager
    async def running(self, directory: Directory, metrics: GatewayMetrics) -> AsyncIterator[None]:
        """While it lasts, stores can be searched, and this process feeds the index, unless
        another one does."""
        if self.fault is not None:
            yield
            return
        from serving.retrieval.worker import Worker

        exchanger = Exchanger(self.config.timeout_s, metrics)
        replicas = Replicas(asyncio.get_running_loop(), directory, exchanger, self.config.timeout_s)
        self._replicas = replicas
        self._worker = Worker(self.config, self.store, self.blobs, self.library)
        self._worker.start()
        try:
            yield
        finally:
            replicas.stop()
            await asyncio.to_thread(self._worker.stop)
            self._worker = self._replicas = None
            with self._opening:
                library, self._library = self._library, None
            if library is not None:
                await asyncio.to_thread(library.close)

    def _embedder(self, replicas: Replicas) -> Embedder:
        from rag.embed.fake import FakeEmbedder
        from serving.retrieval.models import ReplicaEmbedder

        if self.config.embed == "fake":
            return FakeEmbedder()
        assert self.model is not None
        return ReplicaEmbedder(replicas, self.model.name, self._tokens(self.model))

    def _tokens(self, model: ModelConfig) -> Tokens:
        """How the model counts: by its tokenizer's file, which needs none of its libraries."""
        from pathlib import Path

        from rag.embed.fake import FakeEmbedder
        from rag.embed.tokenizer import ModelTokens

        if isinstance(model.engine, FakeConfig):
            return FakeEmbedder()
        longest = getattr(model.engine, "max_model_len", None)
        return ModelTokens.load(Path(self.settings.weights[model.name]), longest)


def _embedding_model(settings: Settings) -> ModelConfig | None:
    """The one that is named, or the first that is there for embedding."""
    config = settings.config
    for model in config.models:
        engine = model.engine
        if config.retrieval.model is not None:
            if model.name == config.retrieval.model:
                return model
        elif engine.kind == "embedding" or (
            isinstance(engine, VllmConfig) and engine.task == "pooling"
        ):
            return model
    return None
