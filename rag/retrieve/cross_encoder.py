"""A cross-encoder behind an endpoint with `/rerank`, such as corral's own."""

from __future__ import annotations

import os
from collections.abc import Sequence

import httpx

from rag.errors import RerankerUnavailable
from rag.retrieve.config import CrossEncoderConfig

__all__ = ["HttpReranker"]


class HttpReranker:
    """`Reranker` over POST /rerank."""

    def __init__(self, config: CrossEncoderConfig) -> None:
        self._config = config
        key = os.environ.get(config.api_key_env)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(
            base_url=config.url.rstrip("/"), headers=headers, timeout=config.timeout_s
        )

    def score(self, query: str, passages: Sequence[str]) -> list[float]:
        """Raises RerankerUnavailable."""
        if not passages:
            return []
        body = {"model": self._config.model, "query": query, "documents": list(passages)}
        try:
            response = self._client.post("/rerank", json=body)
            response.raise_for_status()
            scores = {
                int(one["index"]): float(one["relevance_score"])
                for one in response.json()["results"]
            }
            return [scores[at] for at in range(len(passages))]
        except (httpx.HTTPError, KeyError, TypeError, ValueError) as exc:
            raise RerankerUnavailable(
                f"{self._config.model} at {self._config.url} did not rerank: {exc}. Does it serve "
                f"a reranker, and is ${self._config.api_key_env} a key of its?"
            ) from exc

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
