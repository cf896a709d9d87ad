"""Embeddings by sentence-transformers, with dynamic batching; rerank and score by MaxSim.

Scores are late interaction (ColBERT, Khattab and Zaharia 2020): the mean over
the query's tokens of the greatest cosine with any token of the document. So they
lie in [-1, 1], equal 1 for a text against itself, and compare only within one
model. A model trained for it (`RerankEngine`) ranks better.

The pipeline's own modules are called on ids that were tokenised once, and not
`SentenceTransformer.encode`: the vectors are the same, and tokenising stays out
of the worker thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from starlette.types import ASGIApp

from serving.config import EmbeddingConfig
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
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

__all__ = ["EmbeddingEngine"]


@dataclass(frozen=True, slots=True)
class _Input:
    """One text in a pass, and what to make of it."""

    tokens: Tokens
    want: Literal["vector", "token_vectors", "maxsim"] = "vector"
    query: torch.Tensor | None = None
    """Token vectors (tokens, dim) of the query to score against, for `maxsim`."""


class EmbeddingEngine:
    """Implements `Engine` and `PoolingBackend`. `spec.weights` is a sentence-transformers model."""

    def __init__(self, spec: EngineSpec, config: EmbeddingConfig) -> None:
        self._spec, self._config = spec, config
        self._metrics = PoolingMetrics()
        self._model: SentenceTransformer | None = None
        self._batcher: Batcher[_Input, Any] | None = None
        self._prompt = ""

    async def start(self) -> ASGIApp:
        """Load and warm up. Raises StartError for models that are no text embedders."""
        self._model = model = await asyncio.to_thread(_load, self._spec, self._config)
        tokenizer = fast_tokenizer(model.tokenizer, self._spec.model)
        self._tokens = PoolingTokenizer(tokenizer, token_limit(model))
        self._collate = Collator(model.tokenizer, str(model.device))
        self._prompt = str(model.prompts.get(model.default_prompt_name or "", ""))
        self._dimensions = _Dimensions.of(model)
        self._batcher = Batcher(
            self._run,
            lambda one: len(one.tokens.ids),
            max_tokens=pass_tokens(self._config, str(model.device)),
            max_wait_s=self._config.max_wait_ms / 1000,
            pass_cost=pass_cost(str(model.device)),
            observe=self._metrics.computed,
        )
        self._metrics.watch_queue(lambda: self._running.waiting)
        self._tiny = _Input((await self._tokens.encode(["ready"], Limits(), "input"))[0])
        await self._running.submit([self._tiny] * 8)
        return PoolingApp(self._spec.model, self, self._metrics)

    async def probe(self, deadline_s: float) -> None:
        """See `Engine.probe`: a short text is embedded unless a pass completed meanwhile."""
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
        """See `PoolingBackend.prompted`."""
        return self._prompt + text

    async def embed(
        self, inputs: Sequence[Tokens], dimensions: int | None
    ) -> list[NDArray[np.float32]]:
        """Vectors (dim,) float32, normalised where the model's pipeline says so.

        Fewer `dimensions` are cut from the front and normalised again, for models
        trained for it (Matryoshka); others are refused, as OpenAI and vLLM do.
        """
        size = self._dimensions.checked(dimensions, self._spec.model)
        vectors = await self._running.submit([_Input(one) for one in inputs])
        return [vector if size is None else _shortened(vector, size) for vector in vectors]

    async def score(self, pairs: Pairs, limits: Limits) -> Scores:
        """MaxSim, in two rounds of passes: the queries' token vectors, then the documents."""
        encode = self._tokens.encode
        queries = await encode(cast(list[Text], pairs.queries), limits, pairs.query_param)
        documents = await encode(cast(list[Text], pairs.documents), limits, pairs.document_param)
        vectors = await self._running.submit([_Input(one, "token_vectors") for one in queries])
        if len(vectors) == 1:
            vectors *= len(documents)
        scores = await self._running.submit(
            [
                _Input(document, "maxsim", query)
                for document, query in zip(documents, vectors, strict=True)
            ]
        )
        read = sum(len(one.ids) for one in (*queries, *documents))
        return Scores(scores, read)

    @property
    def _running(self) -> Batcher[_Input, Any]:
        assert self._batcher is not None, "start the engine first"
        return self._batcher

    def _run(self, batch: list[_Input]) -> list[Any]:
        """One pass, on the worker thread."""
        import torch

        assert self._model is not None
        with torch.inference_mode():
            features = self._model(self._collate([one.tokens for one in batch]))
            vectors = features["sentence_embedding"].float().cpu().numpy()
            if all(one.want == "vector" for one in batch):
                return list(vectors)
            by_token = torch.nn.functional.normalize(features["token_embeddings"].float(), dim=-1)
            return [
                vectors[row] if one.want == "vector" else self._by_token(one, by_token[row])
                for row, one in enumerate(batch)
            ]

    def _by_token(self, one: _Input, row: torch.Tensor) -> Any:
        """Token vectors without the padding, or their MaxSim with the query's."""
        vectors = row[self._collate.written(len(one.tokens.ids))]
        if one.query is None:
            return vectors.clone()
        score = (one.query @ vectors.T).amax(dim=1).mean().item()
        return max(-1.0, min(1.0, score))  # rounding may leave the interval


@dataclass(frozen=True)
class _Dimensions:
    """The vector sizes that a model gives."""

    native: int
    matryoshka: bool
    listed: tuple[int, ...]
    """The only sizes allowed, if the model names them."""

    @staticmethod
    def of(model: SentenceTransformer) -> _Dimensions:
        """As vLLM reads it: `is_matryoshka`, `matryoshka_dimensions` of the model's config."""
        listed = tuple(getattr(model.config, "matryoshka_dimensions", None) or ())
        matryoshka = bool(listed) or bool(getattr(model.config, "is_matryoshka", False))
        native = model.get_embedding_dimension()
        assert native is not None, "checked at load"
        return _Dimensions(native, matryoshka, listed)

    def checked(self, asked: int | None, model: str) -> int | None:
        """The size to cut to, None for the whole vector. Raises RequestError."""
        if asked is None or asked == self.native:
            return None
        if not self.matryoshka:
            raise RequestError(
                f"{model!r} was not trained for shorter vectors (Matryoshka); leave "
                f"'dimensions' out, or set it to {self.native}",
                param="dimensions",
            )
        if asked > self.native or (self.listed and asked not in self.listed):
            allowed = ", ".join(map(str, self.listed)) or f"1 to {self.native}"
            raise RequestError(
                f"{model!r} supports these 'dimensions': {allowed}; not {asked}",
                param="dimensions",
            )
        return asked


def _shortened(vector: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    import numpy as np

    cut = vector[:size]
    norm = np.linalg.norm(cut)
    return cut / norm if norm > 0 else cut


def _load(spec: EngineSpec, config: EmbeddingConfig) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    device = prepare_torch(config)
    model = SentenceTransformer(
        str(weights_of(spec)),
        device=device,
        model_kwargs={"dtype": load_dtype(config, device)},
        local_files_only=True,
    )
    refuse_unless_text(model, spec.model)
    prompted = model.default_prompt_name is not None
    if prompted and any(isinstance(one, Pooling) and not one.include_prompt for one in model):
        raise StartError(
            f"{spec.model} leaves its prompt out of the pooling, which is not supported",
            "Serve it with vLLM: engine {kind: vllm, task: pooling}.",
        )
    model.eval()
    return model
