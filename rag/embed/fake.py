"""A deterministic embedder without a model: hashed words. Equal words make texts alike."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rag.embed.config import FakeEmbedConfig
from rag.errors import TextTooLong
from rag.protocols import EmbedKind
from rag.types import Vectors

__all__ = ["FakeEmbedder"]

_TOKEN = re.compile(r"\w{1,12}|[^\w\s]")


class FakeEmbedder:
    """Implements `Embedder` and `TokenVectors`. A token is up to 12 letters, or a sign."""

    def __init__(self, config: FakeEmbedConfig | None = None) -> None:
        self._config = config or FakeEmbedConfig()

    @property
    def name(self) -> str:
        return f"fake-{self.dimension}"

    @property
    def dimension(self) -> int:
        return self._config.dimension

    @property
    def max_tokens(self) -> int:
        return self._config.max_tokens

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """See `Tokens.count_tokens`."""
        return [sum(1 for _ in _TOKEN.finditer(text)) for text in texts]

    def token_spans(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """See `Tokens.token_spans`."""
        return [
            np.array([found.span() for found in _TOKEN.finditer(text)], np.int64).reshape(-1, 2)
            for text in texts
        ]

    def encode(self, texts: Sequence[str], kind: EmbedKind = "document") -> Vectors:
        """See `Embedder.encode`: the sum of the tokens' vectors, normalised."""
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for row, tokens in enumerate(self._checked(texts)):
            for token in tokens:
                place = zlib.crc32(token.encode("utf-8", "surrogatepass"))
                vectors[row, place % self.dimension] += 1 if place & 1 << 31 else -1
            if not vectors[row].any():
                vectors[row, 0] = 1
        norms: Vectors = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / norms

    def encode_tokens(self, texts: Sequence[str]) -> list[Vectors]:
        """See `TokenVectors.encode_tokens`."""
        return [self.encode(tokens or [""]) for tokens in self._checked(texts)]

    def _checked(self, texts: Sequence[str]) -> list[list[str]]:
        found = [_TOKEN.findall(text.lower()) for text in texts]
        for tokens in found:
            if len(tokens) > self.max_tokens:
                raise TextTooLong(
                    f"a text has {len(tokens)} tokens, the embedder takes {self.max_tokens}: "
                    "split it smaller"
                )
        return found
