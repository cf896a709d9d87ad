"""Embeddings kept between runs, outside the repository: a text is embedded once."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from rag.protocols import Embedder, EmbedKind, TokenVectors
from rag.types import Vectors

__all__ = ["CachedEmbedder"]


class CachedEmbedder:
    """An embedder that looks its vectors up first. Token vectors are kept in half precision."""

    def __init__(self, embedder: Embedder, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._embedder = embedder
        self._store = sqlite3.connect(folder / "embeddings.sqlite")
        self._store.execute("create table if not exists vectors (key blob primary key, value blob)")
        self.name = embedder.name
        self.dimension = embedder.dimension
        self.max_tokens = embedder.max_tokens

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._embedder.count_tokens(texts)

    def token_spans(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        return self._embedder.token_spans(texts)

    def encode(self, texts: Sequence[str], kind: EmbedKind = "document") -> Vectors:
        rows = self._through(
            texts, kind, np.dtype("<f4"), lambda missing: list(self._embedder.encode(missing, kind))
        )
        return np.stack([row[0] for row in rows]) if rows else np.zeros((0, self.dimension), "<f4")

    def encode_tokens(self, texts: Sequence[str]) -> list[Vectors]:
        assert hasattr(self._embedder, "encode_tokens"), f"{self.name} gives no token vectors"
        source = cast(TokenVectors, self._embedder)
        rows = self._through(texts, "tokens", np.dtype("<f2"), source.encode_tokens)
        return [row.astype(np.float32) for row in rows]

    def _through(
        self,
        texts: Sequence[str],
        kind: str,
        dtype: np.dtype[np.floating],
        compute: Callable[[list[str]], Sequence[Vectors]],
    ) -> list[Vectors]:
        keys = [hashlib.sha256(f"{self.name}\0{kind}\0{text}".encode()).digest() for text in texts]
        found: dict[bytes, bytes] = {}
        for key in set(keys):
            row = self._store.execute("select value from vectors where key=?", (key,)).fetchone()
            if row is not None:
                found[key] = row[0]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        batch = list(missing.items())
        for at in range(0, len(batch), 256):
            part = batch[at : at + 256]
            made = compute([text for _, text in part])
            for (key, _), vector in zip(part, made, strict=True):
                found[key] = np.asarray(vector, dtype).tobytes()
                self._store.execute(
                    "insert or replace into vectors values (?, ?)", (key, found[key])
                )
            self._store.commit()
        return [np.frombuffer(found[key], dtype).reshape(-1, self.dimension) for key in keys]
