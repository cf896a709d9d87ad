"""Texts to token ids for the pooling engines: limits, truncation, pairs.

Works on a `tokenizers.Tokenizer` that it is handed; imports no model library.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from serving.engines.pooling_api import RequestError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

__all__ = ["Limits", "PoolingTokenizer", "Text", "Tokens"]

Text = str | tuple[str, str] | list[int]
"""A text, a (query, document) pair, or token ids that are used as they are."""

INLINE_CHARS = 4096
"""Less text than this (about a millisecond) is not worth a trip to another thread."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """One model input. `type_ids` tell the two texts of a pair apart."""

    ids: list[int]
    type_ids: list[int]


@dataclass(frozen=True, slots=True)
class Limits:
    """How a request wants its texts cut. By default over-long ones are refused."""

    truncate: int | None = None
    """Most tokens to keep, special ones included; -1 is the model's limit."""
    side: Literal["left", "right"] = "right"
    """Where tokens are taken away."""
    special_tokens: bool = True


class PoolingTokenizer:
    """Encodes texts for one model. `max_model_len` is in tokens, special ones included."""

    def __init__(self, tokenizer: Tokenizer, max_model_len: int) -> None:
        self.max_model_len = max_model_len
        self._plain, self._cutting = _copy(tokenizer), _copy(tokenizer)
        self._cutting_lock = threading.Lock()
        self._vocabulary = tokenizer.get_vocab_size(with_added_tokens=True)

    async def encode(self, texts: Sequence[Text], limits: Limits, param: str) -> list[Tokens]:
        """Tokens of each text, in order. Raises RequestError naming `param`.

        Refuses texts beyond the limit (unless truncated) and unknown token ids.
        """
        keep = self._keep(limits, pairs=any(isinstance(text, tuple) for text in texts))
        if sum(map(_chars, texts)) <= INLINE_CHARS:
            return self._encode(texts, limits, keep, param)
        return await asyncio.to_thread(self._encode, texts, limits, keep, param)

    async def shorten(self, texts: Sequence[str], max_tokens: int) -> list[str]:
        """Each text cut after its first `max_tokens` tokens, special ones not counted."""
        return await asyncio.to_thread(self._shorten, texts, max_tokens)

    def text_tokens(self, text: str, special_tokens: bool) -> list[int]:
        """Token ids of `text`, of any length."""
        return list(self._plain.encode(text, add_special_tokens=special_tokens).ids)

    def token_strings(self, ids: Sequence[int]) -> list[str]:
        """The vocabulary's entry for each id."""
        return [self._plain.id_to_token(one) or "" for one in ids]

    def text(self, ids: list[int]) -> str:
        """The text of `ids`, special tokens included. Raises RequestError for unknown ids."""
        self._check_ids(ids, "tokens")
        return str(self._plain.decode(ids, skip_special_tokens=False))

    def _encode(
        self, texts: Sequence[Text], limits: Limits, keep: int | None, param: str
    ) -> list[Tokens]:
        written = [text for text in texts if not isinstance(text, list)]
        encodings = iter(self._encodings(written, limits, keep))
        found: list[Tokens] = []
        for at, text in enumerate(texts):
            if isinstance(text, list):
                self._check_ids(text, param)
                ids = text if keep is None else _cut(text, keep, limits.side)
                tokens = Tokens(ids, [0] * len(ids))
            else:
                encoding = next(encodings)
                tokens = Tokens(encoding.ids, encoding.type_ids)
            if len(tokens.ids) > self.max_model_len:
                raise self._too_long(len(tokens.ids), at, len(texts), param)
            if not tokens.ids:
                raise RequestError("an input has no tokens", param=param)
            found.append(tokens)
        return found

    def _encodings(
        self, written: list[str | tuple[str, str]], limits: Limits, keep: int | None
    ) -> list[Encoding]:
        special = limits.special_tokens
        if keep is None:
            return list(self._plain.encode_batch_fast(written, add_special_tokens=special))
        with self._cutting_lock:
            self._cutting.enable_truncation(keep, direction=limits.side)
            return list(self._cutting.encode_batch_fast(written, add_special_tokens=special))

    def _shorten(self, texts: Sequence[str], max_tokens: int) -> list[str]:
        encodings = self._plain.encode_batch(list(texts), add_special_tokens=False)
        return [
            text if len(one.ids) <= max_tokens else text[: one.offsets[max_tokens - 1][1]]
            for text, one in zip(texts, encodings, strict=True)
        ]

    def _keep(self, limits: Limits, *, pairs: bool) -> int | None:
        if limits.truncate is None:
            return None
        keep = self.max_model_len if limits.truncate == -1 else limits.truncate
        special = self._plain.num_special_tokens_to_add(pairs) if limits.special_tokens else 0
        if not special < keep <= self.max_model_len:
            raise RequestError(
                f"truncate_prompt_tokens={limits.truncate} must be -1 or between "
                f"{special + 1} and {self.max_model_len}, this model's maximum",
                param="truncate_prompt_tokens",
            )
        return keep

    def _check_ids(self, ids: list[int], param: str) -> None:
        if ids and not (min(ids) >= 0 and max(ids) < self._vocabulary):
            raise RequestError(
                f"token ids must be between 0 and {self._vocabulary - 1}", param=param
            )

    def _too_long(self, given: int, at: int, count: int, param: str) -> RequestError:
        which = "your input" if count == 1 else f"your input at index {at}"
        return RequestError(
            f"This model's maximum context length is {self.max_model_len} tokens. However, "
            f"{which} has {given} tokens. Please reduce its length, or set "
            f"truncate_prompt_tokens to have it cut.",
            param=param,
            code="context_length_exceeded",
        )


def _copy(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer without the padding and truncation that its file switched on."""
    copy = type(tokenizer).from_str(tokenizer.to_str())
    copy.no_padding()
    copy.no_truncation()
    return copy


def _chars(text: Text) -> int:
    return len(text[0]) + len(text[1]) if isinstance(text, tuple) else len(text)


def _cut(ids: list[int], keep: int, side: Literal["left", "right"]) -> list[int]:
    return ids[:keep] if side == "right" else ids[-keep:]
