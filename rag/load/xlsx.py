"""Excel by openpyxl: a sheet is a page and a heading, a row a block with its columns' names."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from rag.load.build import DocumentBuilder
from rag.load.ooxml import checked, translated
from rag.load.tables import labelled
from rag.protocols import RawFile
from rag.types import Document

__all__ = ["load"]

_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_MAX_COLUMNS = 512


def load(raw: RawFile) -> list[Document]:
    """See `Loader.load`. Formulas stand as their last computed values."""
    import openpyxl

    data = checked(raw.data)
    builder = DocumentBuilder()
    with translated("Excel workbook"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        book = openpyxl.load_workbook(data, read_only=True, data_only=True, keep_links=False)
        title = book.properties.title or ""
        for number, sheet in enumerate(book.worksheets, 1):
            builder.heading(sheet.title, 1, number)
            for row in labelled(_rows(sheet)):
                builder.add(row, "table", number)
    return [builder.build(raw, _TYPE, title)]


def _rows(sheet: Any) -> Iterator[list[str]]:
    """Rows that hold something, without empty cells at the end."""
    for row in sheet.iter_rows(values_only=True, max_col=_MAX_COLUMNS):
        cells = ["" if value is None else str(value) for value in row]
        while cells and not cells[-1].strip():
            cells.pop()
        if cells:
            yield cells
