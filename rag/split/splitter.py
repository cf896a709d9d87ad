"""Documents to chunks.

A chunk ends at the last boundary of the coarsest kind in the second half of what fits, so
that chunks are neither cut in a sentence nor much shorter than allowed. Sizes are planned on
one tokenisation of the whole document, then every chunk is counted as it will be embedded;
one that is too long after all is cut again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rag.load.build import name_of
from rag.protocols import Tokens
from rag.split.boundaries import Boundaries, sections
from rag.split.config import SplitConfig
from rag.split.tokens import TokenMap
from rag.types import Chunk, Document, Span

__all__ = ["DEFAULT_TOKENS", "Splitter"]

DEFAULT_TOKENS = 512
"""Size of chunks where the embedder takes more."""
_CONTEXT_SHARE = 4
"""Headings take at most this fraction (one in so many) of a chunk's tokens."""


@dataclass(frozen=True, slots=True)
class _Section:
    span: Span
    path: tuple[str, ...]
    context: str = ""
    context_tokens: int = 0


@dataclass(frozen=True, slots=True)
class _Piece:
    span: Span
    section: _Section


class Splitter:
    """Cuts documents as `config` says, in tokens of `tokens`. Safe to use from threads."""

    def __init__(self, config: SplitConfig, tokens: Tokens) -> None:
        self._config, self._tokens = config, tokens
        asked = config.max_tokens
        if asked is not None and asked > tokens.max_tokens:
            raise ValueError(
                f"split.max_tokens is {asked}, but the embedder takes {tokens.max_tokens}: "
                "lower it, or leave it out"
            )
        self.max_tokens = asked or min(tokens.max_tokens, DEFAULT_TOKENS)

    @property
    def fingerprint(self) -> str:
        """Changes when the same document would give other chunks."""
        config = self._config.model_dump_json(exclude={"max_tokens"})
        return f"1:{self.max_tokens}:{config}"

    def split(self, document: Document) -> list[Chunk]:
        """Chunks in order; then their parents, if any. Every character that is not white space
        is in a chunk, and none has more tokens than `max_tokens`, its context included."""
        if not document.text.strip():
            return []
        tokens = TokenMap(document.text, self._tokens)
        boundaries = Boundaries(document, self._config.by)
        found = self._sections(document)
        if self._config.parent_tokens is None:
            pieces = list(self._pieces(document.text, found, tokens, boundaries))
            return self._chunks(document, self._fitted(document.text, pieces, tokens, boundaries))
        return self._with_parents(document, found, tokens, boundaries)

    def _sections(self, document: Document) -> list[_Section]:
        if self._config.by == "heading":
            found = [_Section(span, path) for span, path in sections(document)]
        else:
            found = [_Section(Span(0, len(document.text)), ())]
        if not self._config.heading_context:
            return found
        contexts = {section.path: _context(document, section.path) for section in found}
        counts = dict(
            zip(contexts, self._tokens.count_tokens(list(contexts.values())), strict=True)
        )
        most = self.max_tokens // _CONTEXT_SHARE
        return [
            replace(one, context=contexts[one.path], context_tokens=counts[one.path])
            if counts[one.path] <= most
            else one
            for one in found
        ]

    def _pieces(
        self, text: str, found: Sequence[_Section], tokens: TokenMap, boundaries: Boundaries
    ) -> Iterator[_Piece]:
        for section in found:
            budget = self.max_tokens - section.context_tokens
            overlap = min(self._config.overlap_tokens, budget // 2)
            for span in _cut(text, section.span, budget, overlap, tokens, boundaries):
                yield _Piece(span, section)

    def _fitted(
        self, text: str, pieces: list[_Piece], tokens: TokenMap, boundaries: Boundaries
    ) -> list[_Piece]:
        """The pieces, those that are too long as they will be embedded cut again."""
        counts = self._tokens.count_tokens([p.section.context + p.span.of(text) for p in pieces])
        found: list[_Piece] = []
        for piece, count in zip(pieces, counts, strict=True):
            if count <= self.max_tokens:
                found.append(piece)
                continue
            planned = tokens.count(piece.span.start, piece.span.end)
            budget = max(1, min(planned - 1, planned * self.max_tokens // count - 1))
            if len(piece.span) == 1 or planned <= 1:
                spans = list(_halves(piece.span))
            else:
                spans = list(_cut(text, piece.span, budget, 0, tokens, boundaries))
            again = [_Piece(span, piece.section) for span in spans]
            found += self._fitted(text, again, tokens, boundaries)
        return found

    def _chunks(
        self, document: Document, pieces: Sequence[_Piece], parents: Sequence[Chunk] = ()
    ) -> list[Chunk]:
        found = []
        at = block = 0
        for position, piece in enumerate(pieces):
            start = piece.span.start
            while block + 1 < len(document.blocks) and (
                document.blocks[block + 1].span.start <= start
            ):
                block += 1
            while at + 1 < len(parents) and parents[at].span.end <= start:
                at += 1
            here = document.blocks[block] if document.blocks else None
            found.append(
                Chunk(
                    document_id=document.id,
                    span=piece.span,
                    text=piece.span.of(document.text),
                    position=position,
                    uri=document.uri,
                    title=document.title,
                    context=piece.section.context,
                    heading_path=piece.section.path or (here.heading_path if here else ()),
                    page=here.page if here else None,
                    parent_id=parents[at].id if parents else None,
                    metadata=document.metadata,
                )
            )
        return found

    def _with_parents(
        self,
        document: Document,
        found: Sequence[_Section],
        tokens: TokenMap,
        boundaries: Boundaries,
    ) -> list[Chunk]:
        size = max(self._config.parent_tokens or 0, self.max_tokens)
        larger = [
            _Piece(span, section)
            for section in found
            for span in _cut(document.text, section.span, size, 0, tokens, boundaries)
        ]
        parents = [replace(one, is_parent=True, id="") for one in self._chunks(document, larger)]
        within = [replace(piece.section, span=piece.span) for piece in larger]
        pieces = list(self._pieces(document.text, within, tokens, boundaries))
        fitted = self._fitted(document.text, pieces, tokens, boundaries)
        return [*self._chunks(document, fitted, parents), *parents]


def _cut(
    text: str, span: Span, budget: int, overlap: int, tokens: TokenMap, boundaries: Boundaries
) -> Iterator[Span]:
    """Ranges of at most `budget` tokens that cover `span`, white space at their ends left out."""
    start = span.start
    while (trimmed := _trim(text, start, span.end)) is not None:
        start = trimmed.start
        end = tokens.after(start, budget, trimmed.end)
        if end < trimmed.end:
            middle = min(tokens.after(start, max(1, budget // 2), end), end - 1)
            end = boundaries.last(middle, end) or boundaries.last(start, end) or end
        piece = _trim(text, start, end)
        if piece is not None:
            yield piece
        if end >= trimmed.end:
            return
        following = end
        if overlap:
            low = max(tokens.before(end, overlap, start), start + 1)
            following = boundaries.first(low, end) or low
        start = following


def _trim(text: str, start: int, end: int) -> Span | None:
    """The range without white space at its ends; None if nothing is left."""
    piece = text[start:end]
    bare = piece.strip()
    if not bare:
        return None
    first = start + len(piece) - len(piece.lstrip())
    return Span(first, first + len(bare))


def _halves(span: Span) -> Iterator[Span]:
    if len(span) <= 1:
        raise ValueError("one character has more tokens than the embedder takes")
    middle = span.start + len(span) // 2
    yield Span(span.start, middle)
    yield Span(middle, span.end)


def _context(document: Document, path: tuple[str, ...]) -> str:
    """Title and headings as one line, without a heading that repeats the title, or a title that
    is only the file's name; "" if nothing is left."""
    own = document.title not in (name_of(document.uri), *path[:1])
    names = (document.title, *path) if own else path
    return " > ".join(names) + "\n" if names else ""
