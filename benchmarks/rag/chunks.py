"""Documents as chunks for the benchmark: whole sentences, as many as the embedder takes. The same
chunks for every configuration, so that rows differ by retrieval alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from rag.protocols import Tokens
from rag.types import Chunk, Span

__all__ = ["chunks_of"]

_SENTENCE = re.compile(r".+?(?:[.!?]\s+|\n\s*\n|$)", re.S)


def chunks_of(name: str, text: str, tokens: Tokens, max_tokens: int) -> list[Chunk]:
    """Chunks of whole sentences with at most `max_tokens` each; longer sentences are cut."""
    pieces = list(_pieces(text, tokens, max_tokens))
    counts = tokens.count_tokens([text[start:end] for start, end in pieces])
    spans: list[Span] = []
    held = 0
    for (start, end), count in zip(pieces, counts, strict=True):
        if spans and held + count <= max_tokens:
            spans[-1] = Span(spans[-1].start, end)
            held += count
        else:
            spans.append(Span(start, end))
            held = count
    return [
        Chunk(name, span, span.of(text), position, uri=name, title=name)
        for position, span in enumerate(spans)
        if span.of(text).strip()
    ]


def _pieces(text: str, tokens: Tokens, max_tokens: int) -> Iterator[tuple[int, int]]:
    for match in _SENTENCE.finditer(text):
        start, end = match.span()
        [offsets] = tokens.token_spans([text[start:end]])
        if len(offsets) <= max_tokens:
            yield start, end
            continue
        cuts = [start, *(start + int(o[0]) for o in offsets[max_tokens::max_tokens]), end]
        yield from pairwise(cuts)
