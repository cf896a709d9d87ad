"""Which embedder."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from configs import StrictModel

__all__ = ["EmbedConfig", "FakeEmbedConfig", "HttpEmbedConfig", "SentenceTransformersConfig"]


class FakeEmbedConfig(StrictModel):
    """Deterministic vectors from hashed words: for tests and for benchmarks of the rest."""

    kind: Literal["fake"] = "fake"
    dimension: int = Field(64, ge=2)
    max_tokens: int = Field(256, ge=8)


class SentenceTransformersConfig(StrictModel):
    """A sentence-transformers model in this process."""

    kind: Literal["sentence_transformers"] = "sentence_transformers"
    model: str = "all-minilm-l6-v2"
    """A folder, or the name of a model under `$CORRAL_HOME/models`."""
    device: str = "auto"
    """`auto` is the GPU if there is one."""
    batch_tokens: int = Field(4096, ge=1)
    """Padded tokens in one pass."""


class HttpEmbedConfig(StrictModel):
    """An OpenAI-compatible endpoint, such as corral's own."""

    kind: Literal["http"] = "http"
    url: str = "http://127.0.0.1:8000/v1"
    model: str = "all-minilm-l6-v2"
    tokenizer: str = "all-minilm-l6-v2"
    """A folder with the model's tokenizer.json, or the name of one under `$CORRAL_HOME/models`:
    sizes are counted here."""
    api_key_env: str = "CORRAL_API_KEY"
    """The environment variable that holds the key."""
    max_tokens: int | None = Field(None, ge=8)
    """Text tokens in one input. None: as the tokenizer's folder says."""


EmbedConfig = FakeEmbedConfig | SentenceTransformersConfig | HttpEmbedConfig
