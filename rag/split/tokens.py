"""The embedder's tokens of a whole document, and how many a range of it holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rag.protocols import Tokens
from rag.types import Span

__all__ = ["TokenMap"]

PIECE_CHARS = 8192
"""Texts are tokenised in pieces of this size: a tokenizer spreads a batch over its threads."""
CHARS_PER_TOKEN = 16
"""Most characters of a chunk for each token it may have. WordPiece makes one token of a word of
any length, which no embedding can stand for."""


class TokenMap:
    """Where tokens begin and end. Counts of ranges are estimates: encoded alone, a range may
    have a token more or fewer at its edges."""

    def __init__(self, text: str, tokens: Tokens) -> None:
        pieces = _pieces(text)
        found = tokens.token_spans([piece.of(text) for piece in pieces])
        moved = [spans + piece.start for spans, piece in zip(found, pieces, strict=True)]
        whole = np.concatenate(moved) if moved else np.zeros((0, 2), np.int64)
        self._starts: NDArray[np.int64] = np.ascontiguousarray(whole[:, 0])

    def count(self, start: int, end: int) -> int:
        """Tokens that begin in the range."""
        low, high = np.searchsorted(self._starts, (start, end))
        return int(high - low)

    def after(self, start: int, tokens: int, end: int) -> int:
        """The furthest end of a range from `start` with at most `tokens` tokens, up to `end`."""
        at = int(np.searchsorted(self._starts, start)) + tokens
        found = int(self._starts[at]) if at < len(self._starts) else end
        return max(start + 1, min(found, end, start + CHARS_PER_TOKEN * tokens))

    def before(self, end: int, tokens: int, start: int) -> int:
        """The earliest start of a range up to `end` with at most `tokens` tokens."""
        at = int(np.searchsorted(self._starts, end)) - tokens
        found = int(self._starts[at]) if 0 <= at < len(self._starts) else start
        return max(start, min(found, end))


def _pieces(text: str) -> list[Span]:
    """The text in pieces that end at white space where there is any."""
    found = []
    start = 0
    while start < len(text):
        end = min(start + PIECE_CHARS, len(text))
        if end < len(text):
            line = text.rfind("\n", start + 1, end)
            gap = line if line > 0 else text.rfind(" ", start + 1, end)
            end = gap if gap > 0 else end
        found.append(Span(start, end))
        start = end
    return found
