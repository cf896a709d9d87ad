"""Counts tokens with a model's own fast tokenizer (`tokenizer.json`), without loading torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rag.errors import EmbedderUnavailable

__all__ = ["ModelTokens"]

_UNBOUNDED = 10**6
"""Limits beyond this are a tokenizer's way to say that it has none."""


class ModelTokens:
    """Implements `Tokens`. Texts in a batch are encoded in parallel, outside of Python's lock."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        self.tokenizer = tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.max_tokens = max_tokens - tokenizer.num_special_tokens_to_add(False)

    @staticmethod
    def load(folder: Path, max_tokens: int | None = None) -> ModelTokens:
        """Of the model in `folder`; `max_tokens`, special ones included, overrides what its
        files say. Raises EmbedderUnavailable."""
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise EmbedderUnavailable(
                f"{folder} has no tokenizer.json: name a model's folder, or prepare the built-in "
                "one with `corral models prepare`"
            )
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as exc:  # tokenizers raises nothing more specific
            raise EmbedderUnavailable(f"{path} cannot be read: {exc}") from exc
        return ModelTokens(tokenizer, max_tokens or _limit(folder))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """See `Tokens.count_tokens`."""
        found = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(one) for one in found]

    def token_spans(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """See `Tokens.token_spans`."""
        found = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [np.array(one.offsets, np.int64).reshape(-1, 2) for one in found]


def _limit(folder: Path) -> int:
    """The smallest limit that the model's files name."""
    named = (
        _json(folder / "sentence_bert_config.json").get("max_seq_length"),
        _json(folder / "tokenizer_config.json").get("model_max_length"),
        _json(folder / "config.json").get("max_position_embeddings"),
    )
    limits = [int(one) for one in named if isinstance(one, int | float) and one < _UNBOUNDED]
    if not limits:
        raise EmbedderUnavailable(f"{folder} does not say how many tokens it takes: set max_tokens")
    return min(limits)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
