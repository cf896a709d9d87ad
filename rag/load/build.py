"""Puts a document's text together block by block, for formats whose text has to be extracted."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from rag.errors import Unparsable
from rag.protocols import RawFile
from rag.types import Block, BlockKind, Document, Scalar, Span, document_id

__all__ = ["DocumentBuilder", "finish", "name_of", "refuse_beyond"]

_SEPARATOR = "\n\n"
_LONE_SURROGATES = re.compile("[\ud800-\udfff\x00]")

_limit_chars = 32 << 20


def refuse_beyond(chars: int) -> None:
    """Set the most text this process makes of one document; a parsing worker's setting."""
    global _limit_chars
    _limit_chars = chars


class DocumentBuilder:
    """Collects blocks, keeps the heading path, and counts characters."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._blocks: list[Block] = []
        self._at = 0
        self._headings: list[tuple[int, str]] = []

    @property
    def empty(self) -> bool:
        return not self._blocks

    @property
    def path(self) -> tuple[str, ...]:
        """Titles of the headings above what is added next."""
        return tuple(title for _, title in self._headings)

    def heading(self, title: str, level: int, page: int | None = None) -> None:
        """A heading of `level` (1 is the outermost); it closes those of its level and below."""
        title = " ".join(clean(title).split())
        if title:
            self.enter(title, level)
            self._append(title, "heading", page)

    def enter(self, title: str, level: int) -> None:
        """Put `title` on the heading path without adding it to the text."""
        while self._headings and self._headings[-1][0] >= level:
            self._headings.pop()
        self._headings.append((level, title))

    def add(self, text: str, kind: BlockKind = "paragraph", page: int | None = None) -> None:
        """A block under the present headings; white space around it is dropped."""
        text = clean(text).strip("\n") if kind == "code" else clean(text).strip()
        if text.strip():
            self._append(text, kind, page)

    def build(
        self,
        raw: RawFile,
        media_type: str,
        title: str = "",
        *,
        part: str = "",
        metadata: Mapping[str, Scalar] | None = None,
    ) -> Document:
        """The document. `part` tells documents of one file apart: it becomes the URI's end."""
        return finish(
            raw, media_type, _SEPARATOR.join(self._parts), self._blocks, title,
            part=part, metadata=metadata,
        )  # fmt: skip

    def _append(self, text: str, kind: BlockKind, page: int | None) -> None:
        if self._parts:
            self._at += len(_SEPARATOR)
        self._parts.append(text)
        span = Span(self._at, self._at + len(text))
        self._blocks.append(Block(span, kind, self.path, page))
        self._at = span.end
        check_length(self._at)


def finish(
    raw: RawFile,
    media_type: str,
    text: str,
    blocks: list[Block],
    title: str = "",
    *,
    part: str = "",
    metadata: Mapping[str, Scalar] | None = None,
) -> Document:
    """A document of `text`. Without a title, the first heading or else the file's name is it."""
    check_length(len(text))
    uri = f"{raw.uri}#{part}" if part else raw.uri
    headings = (block for block in blocks if block.kind == "heading")
    first = next((block.heading_path[-1] for block in headings if block.heading_path), "")
    title = " ".join(clean(title).split()) or first or name_of(raw.uri)
    return Document(
        id=document_id(uri),
        uri=uri,
        title=title[:500],
        media_type=media_type,
        text=text,
        blocks=tuple(blocks),
        sha256=hashlib.sha256(raw.data).hexdigest(),
        metadata={**raw.metadata, **(metadata or {})},
    )


def check_length(chars: int) -> None:
    """Raises Unparsable beyond what `refuse_beyond` set."""
    if chars > _limit_chars:
        raise Unparsable(
            f"more than {_limit_chars >> 20} Mi characters of text come out of it: split the "
            "file, or raise load.max_text_mib"
        )


def clean(text: str) -> str:
    """`text` without what no index or JSON takes: NUL and lone surrogates."""
    return _LONE_SURROGATES.sub("\ufffd", text)


def name_of(uri: str) -> str:
    """The file's name in a path or URL."""
    path = unquote(urlsplit(uri).path) if "://" in uri else uri
    return PurePosixPath(path).name or uri
