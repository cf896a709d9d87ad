"""Plain text: paragraphs at blank lines. The text is the decoded file, spans are exact."""

from __future__ import annotations

import re

from rag.load.build import finish
from rag.load.decode import decode
from rag.protocols import RawFile
from rag.types import Block, BlockKind, Document, Span

__all__ = ["load", "paragraphs"]

_PARAGRAPH = re.compile(r"[^\S\n]*\S[^\n]*(?:\n[^\S\n]*\S[^\n]*)*")


def load(raw: RawFile) -> list[Document]:
    """See `Loader.load`."""
    text = decode(raw.data)
    return [finish(raw, "text/plain", text, paragraphs(text, Span(0, len(text))))]


def paragraphs(
    text: str,
    within: Span,
    kind: BlockKind = "paragraph",
    path: tuple[str, ...] = (),
    page: int | None = None,
) -> list[Block]:
    """One block for each run of lines that are not blank."""
    return [
        Block(Span(found.start(), found.end()), kind, path, page)
        for found in _PARAGRAPH.finditer(text, within.start, within.end)
    ]
