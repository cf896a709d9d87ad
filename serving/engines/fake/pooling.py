"""The fake engine's answers that are not generated: embeddings, rerank, score, tokens.

Deterministic and without a model: a text's vector is the sum of its words' hashes,
a pair's score is the share of the query's words that the document holds.
"""

from __future__ import annotations

import base64
import hashlib
import math
import uuid
import zlib
from array import array
from time import time
from typing import Any, Literal

from pydantic import AliasChoices, Field

from serving.engines.fake.requests import ApiError, Named

__all__ = [
    "DetokenizeRequest",
    "EmbeddingRequest",
    "RerankRequest",
    "ScoreRequest",
    "TokenizeRequest",
    "Vocabulary",
    "embed",
    "overlap",
]

DIMENSIONS = 64


class EmbeddingRequest(Named):
    """`POST /v1/embeddings`."""

    input: str | list[str]
    dimensions: int | None = Field(None, ge=1, le=8192)
    encoding_format: Literal["float", "base64"] | None = None

    def answer(self, model: str) -> dict[str, Any]:
        texts = [self.input] if isinstance(self.input, str) else self.input
        data = [
            {"index": i, "object": "embedding", "embedding": self._encode(text)}
            for i, text in enumerate(texts)
        ]
        return _listed(model, data, texts)

    def _encode(self, text: str) -> list[float] | str:
        vector = embed(text, self.dimensions or DIMENSIONS)
        if self.encoding_format == "base64":
            return base64.b64encode(array("f", vector).tobytes()).decode()
        return vector


class RerankRequest(Named):
    """`POST /v1/rerank`."""

    query: str
    documents: list[str]
    top_n: int = Field(0, ge=0)

    def answer(self, model: str) -> dict[str, Any]:
        scores = [overlap(self.query, text) for text in self.documents]
        best = sorted(range(len(scores)), key=lambda i: scores[i], reverse=True)
        results = [
            {"index": i, "document": {"text": self.documents[i]}, "relevance_score": scores[i]}
            for i in best[: self.top_n or None]
        ]
        tokens = _count([self.query, *self.documents])
        return {
            "id": f"rerank-{uuid.uuid4().hex}",
            "model": model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "results": results,
        }


class ScoreRequest(Named):
    """`POST /v1/score`: one text against many, or pairs. vLLM's other spellings are accepted."""

    text_1: str | list[str] = Field(
        validation_alias=AliasChoices("text_1", "queries", "data_1"), min_length=1
    )
    text_2: str | list[str] = Field(
        validation_alias=AliasChoices("text_2", "documents", "items", "data_2"), min_length=1
    )

    def answer(self, model: str) -> dict[str, Any]:
        left = [self.text_1] if isinstance(self.text_1, str) else self.text_1
        right = [self.text_2] if isinstance(self.text_2, str) else self.text_2
        if len(left) == 1:
            left = left * len(right)
        if len(left) != len(right):
            raise ApiError.bad_request(
                f"text_1 holds {len(left)} texts and text_2 {len(right)}: give one against many, "
                "or as many of each",
                "text_1",
            )
        data = [
            {"index": i, "object": "score", "score": overlap(a, b)}
            for i, (a, b) in enumerate(zip(left, right, strict=True))
        ]
        return _listed(model, data, left + right)


class TokenizeRequest(Named):
    """`POST /tokenize`: of a prompt, or of a chat's messages joined."""

    prompt: str | None = None
    messages: tuple[dict[str, Any], ...] = ()
    return_token_strs: bool = False

    @property
    def words(self) -> list[str]:
        if self.prompt is not None:
            return self.prompt.split()
        return " ".join(str(message.get("content") or "") for message in self.messages).split()


class DetokenizeRequest(Named):
    """`POST /detokenize`."""

    tokens: list[int]


class Vocabulary:
    """Words by their id, a CRC-32. Knows the words that it was asked to tokenize."""

    def __init__(self) -> None:
        self._words: dict[int, str] = {}

    def tokenize(self, words: list[str]) -> list[int]:
        ids = [zlib.crc32(word.encode()) for word in words]
        self._words.update(zip(ids, words, strict=True))
        return ids

    def detokenize(self, ids: list[int]) -> str:
        """Raises ApiError (400) for an id that `tokenize` never gave."""
        unknown = [i for i in ids if i not in self._words]
        if unknown:
            raise ApiError.bad_request(
                f"token {unknown[0]} is unknown: the fake engine detokenizes only what it tokenized"
            )
        return " ".join(self._words[i] for i in ids)


def embed(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """`(dimensions,)` floats, L2-normalised; texts that share words point the same way."""
    total = [0.0] * dimensions
    for word in text.lower().split() or [""]:
        digest = hashlib.shake_128(word.encode()).digest(dimensions)
        total = [value + byte - 127.5 for value, byte in zip(total, digest, strict=True)]
    norm = math.sqrt(sum(value * value for value in total)) or 1.0
    return [value / norm for value in total]


def overlap(query: str, document: str) -> float:
    """Share of the query's distinct words that occur in the document, 0 to 1."""
    wanted = set(query.lower().split())
    return len(wanted & set(document.lower().split())) / max(len(wanted), 1)


def _count(texts: list[str]) -> int:
    return sum(len(text.split()) for text in texts)


def _listed(model: str, data: list[dict[str, Any]], texts: list[str]) -> dict[str, Any]:
    tokens = _count(texts)
    return {
        "id": f"embd-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time()),
        "model": model,
        "data": data,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
    }
