"""Rerank and score by a cross-encoder: query and document read together, one score a pair.

Scores are what `sentence_transformers.CrossEncoder.predict` gives: the model's
activation on its one label, by default a sigmoid, so in [0, 1].
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from starlette.types import ASGIApp

from serving.config import RerankConfig
from serving.engines.base import EngineSpec
from serving.engines.batching import Batcher
from serving.engines.pooling_api import Pairs, RequestError
from serving.engines.pooling_app import PoolingApp, Scores
from serving.engines.pooling_metrics import PoolingMetrics
from serving.engines.pooling_model import (
    Collator,
    fast_tokenizer,
    load_dtype,
    pass_cost,
    pass_tokens,
    prepare_torch,
    refuse_unless_text,
    token_limit,
    weights_of,
)
from serving.engines.pooling_tokens import Limits, PoolingTokenizer, Text, Tokens
from serving.errors import StartError

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

__all__ = ["RerankEngine"]


class RerankEngine:
    """Implements `Engine` and `PoolingBackend`. `spec.weights` is a cross-encoder of one label."""

    def __init__(self, spec: EngineSpec, config: RerankConfig) -> None:
        self._spec, self._config = spec, config
        self._metrics = PoolingMetrics()
        self._model: CrossEncoder | None = None
        self._batcher: Batcher[Tokens, float] | None = None

    async def start(self) -> ASGIApp:
        """Load and warm up. Raises StartError for models that do not give one score a pair."""
        self._model = model = await asyncio.to_thread(_load, self._spec, self._config)
        tokenizer = fast_tokenizer(model.tokenizer, self._spec.model)
        self._tokens = PoolingTokenizer(tokenizer, token_limit(model))
        self._collate = Collator(model.tokenizer, str(model.device))
        self._batcher = Batcher(
            self._run,
            lambda one: len(one.ids),
            max_tokens=pass_tokens(self._config, str(model.device)),
            max_wait_s=self._config.max_wait_ms / 1000,
            pass_cost=pass_cost(str(model.device)),
            observe=self._metrics.computed,
        )
        self._metrics.watch_queue(lambda: self._running.waiting)
        self._tiny = (await self._tokens.encode([("ready", "yes")], Limits(), "query"))[0]
        await self._running.submit([self._tiny] * 8)
        return PoolingApp(self._spec.model, self, self._metrics)

    async def probe(self, deadline_s: float) -> None:
        """See `Engine.probe`: a short pair is scored unless a pass completed meanwhile."""
        await self._running.probe(self._tiny, deadline_s)

    async def metrics(self) -> str:
        """See `Engine.metrics`."""
        return self._metrics.text()

    async def stop(self) -> None:
        """End the worker and drop the weights. Queued requests are told to try again."""
        if self._batcher is not None:
            await self._batcher.close()
        self._model = None

    @property
    def tokens(self) -> PoolingTokenizer:
        return self._tokens

    def prompted(self, text: str) -> str:
        """See `PoolingBackend.prompted`: cross-encoders have no prompts."""
        return text

    async def embed(self, inputs: Sequence[Tokens], dimensions: int | None) -> NoReturn:
        """Raises RequestError: a cross-encoder has no vector of one text."""
        raise RequestError(
            f"{self._spec.model!r} is a cross-encoder and makes no embeddings; it answers "
            "/v1/rerank and /v1/score",
            param="model",
        )

    async def score(self, pairs: Pairs, limits: Limits) -> Scores:
        """One score a pair, as the model's activation gives it."""
        queries = pairs.queries
        if len(queries) == 1:
            queries = queries * len(pairs.documents)
        texts: list[Text] = list(zip(queries, pairs.documents, strict=True))
        inputs = await self._tokens.encode(texts, limits, pairs.document_param)
        scores = await self._running.submit(inputs)
        return Scores(scores, sum(len(one.ids) for one in inputs))

    @property
    def _running(self) -> Batcher[Tokens, float]:
        assert self._batcher is not None, "start the engine first"
        return self._batcher

    def _run(self, batch: list[Tokens]) -> list[float]:
        """One pass, on the worker thread."""
        import torch

        assert self._model is not None
        with torch.inference_mode():
            scores = self._model(self._collate(batch))["scores"].float()
            found: list[float] = self._model.activation_fn(scores).reshape(-1).tolist()
        return found


def _load(spec: EngineSpec, config: RerankConfig) -> CrossEncoder:
    from sentence_transformers import CrossEncoder

    device = prepare_torch(config)
    model = CrossEncoder(
        str(weights_of(spec)),
        device=device,
        model_kwargs={"dtype": load_dtype(config, device)},
        local_files_only=True,
    )
    refuse_unless_text(model, spec.model)
    if model.num_labels != 1:
        raise StartError(
            f"{spec.model} gives {model.num_labels} labels a pair, a reranker gives one",
            "Choose a cross-encoder trained for ranking, or kind: embedding for an embedder.",
        )
    if model.default_prompt_name is not None:
        raise StartError(
            f"{spec.model} puts a prompt before its pairs, which is not supported",
            "Serve it with vLLM: engine {kind: vllm, task: pooling}.",
        )
    model.eval()
    return model
