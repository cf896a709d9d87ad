"""rag's `Embedder` and `Reranker` over the stack's replicas."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag.errors import EmbedderUnavailable, RerankerUnavailable, TextTooLong
from rag.protocols import EmbedKind, Tokens
from rag.types import Vectors
from serving.retrieval.replicas import Replicas

_TEXTS_A_REQUEST = 64
_LEAST_NORM = 1e-12


class ReplicaEmbedder:
    """Implements `Embedder`: texts are counted here and embedded by leases."""

    def __init__(self, replicas: Replicas, model: str, tokens: Tokens) -> None:
        """Asks for one vector, to know the dimension. Raises as `Replicas.post`."""
        self._replicas, self._model, self._tokens = replicas, model, tokens
        [answer] = self._ask([["dimension"]])
        self._dimension = int(answer.shape[1])

    @property
    def name(self) -> str:
        return self._model

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def max_tokens(self) -> int:
        return self._tokens.max_tokens

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """See `Tokens.count_tokens`."""
        return self._tokens.count_tokens(texts)

    def token_spans(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """See `Tokens.token_spans`."""
        return self._tokens.token_spans(texts)

    def encode(self, texts: Sequence[str], kind: EmbedKind = "document") -> Vectors:
        """See `Embedder.encode`; in requests of 64 texts, which go out at once."""
        longest = max(self.count_tokens(texts), default=0)
        if longest > self.max_tokens:
            raise TextTooLong(
                f"a text has {longest} tokens, {self.name} takes {self.max_tokens}: "
                "split it smaller"
            )
        step = _TEXTS_A_REQUEST
        parts = self._ask([list(texts[at : at + step]) for at in range(0, len(texts), step)])
        if not parts:
            return np.zeros((0, self._dimension), np.float32)
        found = np.concatenate(parts)
        norms: Vectors = np.linalg.norm(found, axis=1, keepdims=True)
        normalised: Vectors = (found / np.maximum(norms, _LEAST_NORM)).astype(np.float32)
        return normalised

    def _ask(self, batches: list[list[str]]) -> list[Vectors]:
        bodies = [
            {"model": self._model, "input": texts, "encoding_format": "base64"} for texts in batches
        ]
        answers = self._replicas.post(self._model, "/v1/embeddings", bodies) if bodies else []
        return [
            self._vectors(answer, len(texts))
            for answer, texts in zip(answers, batches, strict=True)
        ]

    def _vectors(self, answer: dict[str, Any], wanted: int) -> Vectors:
        try:
            rows = sorted(answer["data"], key=lambda row: row["index"])
            vectors = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in rows]
            found: Vectors = np.stack(vectors).astype(np.float32)
        except (KeyError, TypeError, ValueError) as exc:
            raise EmbedderUnavailable(f"{self._model} answers no embeddings: {exc!r}") from exc
        if len(found) != wanted:
            raise EmbedderUnavailable(
                f"{self._model} answers {len(found)} vectors for {wanted} texts"
            )
        return found


class ReplicaReranker:
    """Implements `Reranker` by `/v1/rerank`."""

    def __init__(self, replicas: Replicas, model: str) -> None:
        self._replicas, self._model = replicas, model

    def score(self, query: str, passages: Sequence[str]) -> list[float]:
        """See `Reranker.score`."""
        if not passages:
            return []
        body = {"model": self._model, "query": query, "documents": list(passages)}
        [answer] = self._replicas.post(self._model, "/v1/rerank", [body])
        try:
            scores = {row["index"]: float(row["relevance_score"]) for row in answer["results"]}
            return [scores[number] for number in range(len(passages))]
        except (KeyError, TypeError, ValueError) as exc:
            raise RerankerUnavailable(f"{self._model} answers no ranking: {exc!r}") from exc
