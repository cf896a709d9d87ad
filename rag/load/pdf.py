"""PDF by pypdf: text page by page, cells of tables set apart, bookmarks as the heading path."""

from __future__ import annotations

import io
import logging
import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

from pypdf import PageObject, PdfReader
from pypdf.errors import DependencyError, FileNotDecryptedError, PyPdfError

from rag.errors import Unparsable
from rag.load.build import DocumentBuilder
from rag.protocols import RawFile
from rag.types import Document

__all__ = ["load"]

_HYPHEN = re.compile(r"(?<=[a-zà-ÿ])[-\u00ad]\n(?=[a-zà-ÿ])")
_BLANK = re.compile(r"\n\s*\n")
_MAX_BOOKMARKS = 10_000
_MAX_DEPTH = 8
_GLYPH_EMS = 0.55
"""Mean width of a character, in the font's size."""
_CELL_EMS = 1.5
"""A wider gap on one line separates cells."""
_BAD = (PyPdfError, DependencyError, ValueError, TypeError, KeyError, IndexError, AttributeError,
        AssertionError, RecursionError, NotImplementedError, OverflowError, ZeroDivisionError,
        OSError, EOFError)  # fmt: skip
"""What pypdf raises on damaged files: it promises no less."""

logging.getLogger("pypdf").setLevel(logging.CRITICAL)


def load(raw: RawFile) -> list[Document]:
    """See `Loader.load`. A page that cannot be read is left out, unless none can."""
    reader = _open(raw.data)
    marks = _bookmarks(reader)
    starts = [page for page, _ in marks]
    builder = DocumentBuilder()
    failed: list[str] = []
    for number, page in _pages(reader):
        here = bisect_right(starts, number)
        for level, title in _path(marks, here):
            builder.enter(title, level)
        try:
            _add_page(builder, page, number)
        except _BAD as exc:
            if isinstance(exc, Unparsable):
                raise
            failed.append(f"page {number}: {exc}")
    if builder.empty:
        reason = failed[0] if failed else "no page has text; it may hold scanned images"
        raise Unparsable(f"no text in this PDF: {reason}")
    missing = {"unreadable_pages": len(failed)} if failed else {}
    return [builder.build(raw, "application/pdf", _title(reader), metadata=missing)]


def _open(data: bytes) -> PdfReader:
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unparsable("this PDF needs a password: save it without one")
        return reader
    except FileNotDecryptedError as exc:
        raise Unparsable("this PDF needs a password: save it without one") from exc
    except DependencyError as exc:
        raise Unparsable(f"this PDF's encryption is not supported: {exc}") from exc
    except _BAD as exc:
        if isinstance(exc, Unparsable):
            raise
        raise Unparsable(f"it is no readable PDF: {exc}") from exc


def _pages(reader: PdfReader) -> Iterator[tuple[int, PageObject]]:
    try:
        yield from enumerate(reader.pages, 1)
    except _BAD as exc:
        raise Unparsable(f"the PDF's pages cannot be read: {exc}") from exc


def _add_page(builder: DocumentBuilder, page: PageObject, number: int) -> None:
    text = _HYPHEN.sub("", _text(page))
    for paragraph in _BLANK.split(text):
        lines = [line.strip() for line in paragraph.split("\n")]
        run: list[str] = []
        table = False
        for line in lines:
            if (" | " in line) != table and run:
                builder.add("\n".join(run), "table" if table else "paragraph", number)
                run = []
            table = " | " in line
            run.append(line)
        builder.add("\n".join(run), "table" if table else "paragraph", number)


def _text(page: PageObject) -> str:
    """The page's text in the order it was written, ` | ` where a wide gap parts two cells."""
    pieces: list[str] = []
    end: tuple[float, float] | None = None

    def visit(text: str, cm: list[float], tm: list[float], _font: Any, size: float) -> None:
        nonlocal end
        if not text:
            return
        scale = abs(tm[0] or tm[1]) or 1.0
        x, y = tm[4] + cm[4], tm[5] + cm[5]
        ems = abs(size) * scale or 1.0
        words = text.strip()
        if not words or "\n" in text.rstrip("\n"):
            end = None if "\n" in text else end
        else:
            if end is not None and abs(y - end[1]) < 0.3 * ems and x - end[0] > _CELL_EMS * ems:
                text = f" | {text.lstrip()}"
            end = None if text.endswith("\n") else (x + len(words) * _GLYPH_EMS * ems, y)
        pieces.append(text)

    page.extract_text(visitor_text=visit)
    return "".join(pieces)


def _path(marks: list[tuple[int, tuple[int, str]]], here: int) -> Iterator[tuple[int, str]]:
    """The bookmark in force and those above it, the outermost first."""
    found: list[tuple[int, str]] = []
    level = _MAX_DEPTH + 1
    for _, (depth, title) in reversed(marks[:here]):
        if depth < level:
            found.append((depth, title))
            level = depth
        if level == 1:
            break
    return reversed(found)


def _bookmarks(reader: PdfReader) -> list[tuple[int, tuple[int, str]]]:
    """(page, (depth, title)) in the order of pages; nothing if the outline is damaged."""
    found: list[tuple[int, tuple[int, str]]] = []

    def visit(items: list[Any], depth: int) -> None:
        for item in items:
            if len(found) >= _MAX_BOOKMARKS:
                return
            if isinstance(item, list):
                if depth < _MAX_DEPTH:
                    visit(item, depth + 1)
            elif (page := reader.get_destination_page_number(item)) is not None and page >= 0:
                title = " ".join(str(item.title or "").split())
                if title:
                    found.append((page + 1, (depth, title[:200])))

    try:
        visit(list(reader.outline), 1)
    except _BAD:
        return []
    return sorted(found, key=lambda mark: mark[0])


def _title(reader: PdfReader) -> str:
    try:
        return str((reader.metadata and reader.metadata.title) or "")
    except _BAD:
        return ""
