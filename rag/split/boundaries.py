"""Places where a text may be cut, from the coarsest to the finest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rag.types import Document, Span

__all__ = ["Boundaries", "By", "sections"]

By = Literal["heading", "recursive", "sentence", "token"]

_PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")
_LINE = re.compile(r"\n")
_SENTENCE = re.compile(
    r"(?<=[.!?\u2026])[\"'\u201d\u2019)\]]*\s+(?=[\"'\u201c\u2018(\[]?[^\Wa-z_])"
    r"|(?<=[\u3002\uff01\uff1f])|\n[^\S\n]*\n\s*"
)
_ABBREVIATION = re.compile(
    r"\b(?:[A-Z]|e\.g|i\.e|etc|vs|cf|Dr|Mr|Mrs|Ms|Prof|Sr|Jr|St|No|Fig|Figs|Eq|Eqs|Ref|Refs|Sec|"
    r"Vol|approx|dept|al)\.$"
)
_WORD = re.compile(r"\s+")


class Boundaries:
    """Candidates in a text by level; a cut is made before the character at a position."""

    def __init__(self, document: Document, by: By) -> None:
        text = document.text
        blocks = np.array([block.span.start for block in document.blocks], np.int64)
        words = _ends(_WORD, text)
        match by:
            case "token":
                levels: list[NDArray[np.int64]] = []
            case "sentence":
                levels = [np.union1d(_sentences(text), blocks), words]
            case _:
                coarse = np.union1d(_ends(_PARAGRAPH, text), blocks)
                levels = [coarse, _ends(_LINE, text), _sentences(text), words]
        self._levels = levels

    def last(self, low: int, high: int) -> int | None:
        """The last candidate in (low, high] of the coarsest level that has one there."""
        for level in self._levels:
            at = int(np.searchsorted(level, high, "right")) - 1
            if at >= 0 and level[at] > low:
                return int(level[at])
        return None

    def first(self, low: int, high: int) -> int | None:
        """The first candidate in [low, high) of the coarsest level that has one there."""
        for level in self._levels:
            at = int(np.searchsorted(level, low))
            if at < len(level) and level[at] < high:
                return int(level[at])
        return None


def sections(document: Document) -> list[tuple[Span, tuple[str, ...]]]:
    """The whole text in ranges of one heading path each. A heading with nothing under it but
    deeper headings belongs to the section that follows."""
    edges: list[tuple[int, tuple[str, ...]]] = []
    for block in document.blocks:
        if not edges or edges[-1][1] != block.heading_path:
            edges.append((block.span.start, block.heading_path))
    if not edges:
        return [(Span(0, len(document.text)), ())]
    headings = {block.span: block for block in document.blocks if block.kind == "heading"}
    edges[0] = (0, edges[0][1])
    ends = [start for start, _ in edges[1:]] + [len(document.text)]
    alone = {span.end for span in headings}
    return _joined(document.text, edges, ends, alone)


def _joined(
    text: str, edges: Sequence[tuple[int, tuple[str, ...]]], ends: Sequence[int], alone: set[int]
) -> list[tuple[Span, tuple[str, ...]]]:
    found: list[tuple[Span, tuple[str, ...]]] = []
    begun: int | None = None
    for at, ((start, path), end) in enumerate(zip(edges, ends, strict=True)):
        first = start if begun is None else begun
        stripped = start + len(text[start:end].rstrip())
        deeper = at + 1 < len(edges) and edges[at + 1][1][: len(path)] == path
        heading_only = stripped in alone and "\n" not in text[start:stripped].strip()
        if heading_only and deeper:
            begun = first
            continue
        found.append((Span(first, end), path))
        begun = None
    return found


def _ends(pattern: re.Pattern[str], text: str) -> NDArray[np.int64]:
    return np.fromiter((found.end() for found in pattern.finditer(text)), np.int64)


def _sentences(text: str) -> NDArray[np.int64]:
    return np.fromiter(
        (
            found.end()
            for found in _SENTENCE.finditer(text)
            if not _ABBREVIATION.search(text, max(0, found.start() - 12), found.start())
        ),
        np.int64,
    )
