"""A language model behind an OpenAI-compatible endpoint as a `Generator`."""

from __future__ import annotations

import os
from collections.abc import Sequence

import httpx

from configs import StrictModel
from rag.errors import GeneratorUnavailable
from rag.protocols import Message

__all__ = ["GenerateConfig", "HttpGenerator"]


class GenerateConfig(StrictModel):
    """Which model answers and rewrites."""

    url: str = "http://127.0.0.1:8000/v1"
    model: str = "smollm2-135m"
    """Any name the endpoint serves, an adapter's too."""
    api_key_env: str = "CORRAL_API_KEY"
    """The environment variable that holds the key."""
    timeout_s: float = 120.0


class HttpGenerator:
    """`Generator` over POST /chat/completions, greedy."""

    def __init__(self, config: GenerateConfig) -> None:
        self._config = config
        key = os.environ.get(config.api_key_env)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(
            base_url=config.url.rstrip("/"), headers=headers, timeout=config.timeout_s
        )

    def generate(self, messages: Sequence[Message], *, max_tokens: int) -> str:
        """Raises GeneratorUnavailable."""
        body = {
            "model": self._config.model,
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "max_tokens": max_tokens,
            "temperature": 0,
        }
        try:
            response = self._client.post("/chat/completions", json=body)
            response.raise_for_status()
            return str(response.json()["choices"][0]["message"]["content"] or "")
        except (httpx.HTTPError, KeyError, IndexError, ValueError) as exc:
            raise GeneratorUnavailable(
                f"{self._config.model} at {self._config.url} gave no answer: {exc}. Is it serving, "
                f"and is ${self._config.api_key_env} a key of its?"
            ) from exc

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
