"""PowerPoint by python-pptx: a slide is a page, its title a heading; notes follow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rag.errors import Unparsable
from rag.load.build import DocumentBuilder
from rag.load.ooxml import checked, translated
from rag.load.tables import grid
from rag.protocols import RawFile
from rag.types import Document

__all__ = ["load"]

_TYPE = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
_MAX_DEPTH = 20


def load(raw: RawFile) -> list[Document]:
    """See `Loader.load`."""
    import pptx

    data = checked(raw.data)
    builder = DocumentBuilder()
    with translated("PowerPoint presentation"):
        deck = pptx.Presentation(data)
        title = deck.core_properties.title or ""
        for number, slide in enumerate(deck.slides, 1):
            _slide(builder, slide, number)
    return [builder.build(raw, _TYPE, "" if title == "PowerPoint Presentation" else title)]


def _slide(builder: DocumentBuilder, slide: Any, number: int) -> None:
    title = slide.shapes.title
    heading = title.text_frame.text if title is not None else ""
    builder.heading(heading or f"Slide {number}", 1, number)
    skipped = None if title is None else title.shape_id
    _shapes(builder, slide.shapes, number, skipped, 0)
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        builder.add(slide.notes_slide.notes_text_frame.text, "paragraph", number)


def _shapes(
    builder: DocumentBuilder, shapes: Iterable[Any], page: int, skipped: int | None, depth: int
) -> None:
    if depth > _MAX_DEPTH:
        raise Unparsable(f"its shapes are grouped more than {_MAX_DEPTH} deep")
    for shape in shapes:
        if shape.shape_id == skipped:
            continue
        if hasattr(shape, "shapes"):
            _shapes(builder, shape.shapes, page, None, depth + 1)
        elif getattr(shape, "has_table", False):
            rows = ([cell.text for cell in row.cells] for row in shape.table.rows)
            builder.add(grid(rows), "table", page)
        elif shape.has_text_frame:
            builder.add(shape.text_frame.text, "paragraph", page)
