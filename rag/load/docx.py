"""Word documents by python-docx: headings by style, lists, tables, in the order of the body."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rag.load.build import DocumentBuilder
from rag.load.ooxml import checked, translated
from rag.load.tables import grid
from rag.protocols import RawFile
from rag.types import Document

if TYPE_CHECKING:
    from docx.document import Document as WordDocument
    from docx.table import Table

__all__ = ["load"]

_HEADING = re.compile(r"heading (\d)", re.IGNORECASE)


def load(raw: RawFile) -> list[Document]:
    """See `Loader.load`. Word stores no pages, so blocks have none."""
    import docx

    data = checked(raw.data)
    builder = DocumentBuilder()
    with translated("Word document"):
        word = docx.Document(data)
        title = word.core_properties.title or ""
        _body(builder, word)
    return [builder.build(raw, _TYPE, title)]


_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


def _body(builder: DocumentBuilder, word: WordDocument) -> None:
    from docx.text.paragraph import Paragraph

    styles = {style.style_id: style.name or "" for style in word.styles}
    items: list[str] = []
    for part in word.iter_inner_content():
        if not isinstance(part, Paragraph):
            _flush(builder, items)
            builder.add(grid(_rows(part)), "table")
            continue
        style, text = styles.get(part._p.style or "", ""), part.text
        found = _HEADING.match(style)
        numbered = part._p.pPr is not None and part._p.pPr.numPr is not None
        if found or style == "Title":
            _flush(builder, items)
            builder.heading(text, int(found.group(1)) if found else 1)
        elif style.startswith("List") or numbered:
            items += [f"- {text.strip()}"] if text.strip() else []
        else:
            _flush(builder, items)
            builder.add(text, "quote" if "Quote" in style else "paragraph")
    _flush(builder, items)


def _flush(builder: DocumentBuilder, items: list[str]) -> None:
    builder.add("\n".join(items), "list")
    items.clear()


def _rows(table: Table) -> list[list[str]]:
    """Texts of the cells; a merged cell stands once."""
    rows = []
    for row in table.rows:
        cells: list[str] = []
        last = None
        for cell in row.cells:
            if cell._tc is not last:
                cells.append(cell.text)
            last = cell._tc
        rows.append(cells)
    return rows
