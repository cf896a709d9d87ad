"""An OpenAI-compatible endpoint. Tokens are counted here, with the model's own tokenizer."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from rag.embed.config import HttpEmbedConfig
from rag.embed.tokenizer import ModelTokens
from rag.errors import EmbedderUnavailable, TextTooLong
from rag.protocols import EmbedKind
from rag.types import Vectors

__all__ = ["HttpEmbedder"]

_TEXTS_A_REQUEST = 128
_TIMEOUT_S = 120.0
_ATTEMPTS = 5
_AGAIN = frozenset({429, 500, 502, 503, 504})


class HttpEmbedder:
    """Implements `Embedder`. Busy answers are tried again after what `Retry-After` says."""

    def __init__(self, config: HttpEmbedConfig, tokenizer: Path) -> None:
        """Raises EmbedderUnavailable."""
        self._config = config
        self._tokens = ModelTokens.load(tokenizer, config.max_tokens)
        key = os.environ.get(config.api_key_env, "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(headers=headers, timeout=_TIMEOUT_S)
        self._dimension = int(self._request(["dimension"]).shape[1])

    @property
    def name(self) -> str:
        return self._config.model

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
        """See `Embedder.encode`."""
        longest = max(self.count_tokens(texts), default=0)
        if longest > self.max_tokens:
            raise TextTooLong(
                f"a text has {longest} tokens, {self.name} takes {self.max_tokens}: "
                "split it smaller"
            )
        parts = [
            self._request(texts[at : at + _TEXTS_A_REQUEST])
            for at in range(0, len(texts), _TEXTS_A_REQUEST)
        ]
        found = np.concatenate(parts) if parts else np.zeros((0, self._dimension), np.float32)
        norms: Vectors = np.linalg.norm(found, axis=1, keepdims=True)
        normalised: Vectors = (found / np.maximum(norms, 1e-12)).astype(np.float32)
        return normalised

    def _request(self, texts: Sequence[str]) -> Vectors:
        body = {"model": self._config.model, "input": list(texts), "encoding_format": "base64"}
        answer = self._post(body)
        try:
            rows = sorted(answer["data"], key=lambda row: row["index"])
            vectors = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in rows]
            found = np.stack(vectors).astype(np.float32)
        except (KeyError, TypeError, ValueError) as exc:
            raise EmbedderUnavailable(f"{self._config.url} answers no embeddings: {exc!r}") from exc
        if len(found) != len(texts):
            raise EmbedderUnavailable(
                f"{self._config.url} answers {len(found)} vectors for {len(texts)} texts"
            )
        return found

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        url = f"{self._config.url.rstrip('/')}/embeddings"
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                answer = self._client.post(url, json=body)
            except httpx.HTTPError as exc:
                raise EmbedderUnavailable(
                    f"the embedder at {url} does not answer: {exc}. Is it running?"
                ) from exc
            if answer.status_code not in _AGAIN or attempt == _ATTEMPTS:
                break
            time.sleep(_wait_s(answer, attempt))
        if answer.status_code != 200:
            raise EmbedderUnavailable(
                f"the embedder at {url} answers {answer.status_code}: {answer.text[:300]}"
            )
        found = answer.json()
        return found if isinstance(found, dict) else {}


def _wait_s(answer: httpx.Response, attempt: int) -> float:
    asked = answer.headers.get("retry-after", "")
    return min(float(asked), 30.0) if asked.isdigit() else 0.25 * 2.0**attempt
