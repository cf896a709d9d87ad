"""CSV, TSV, JSON Lines and JSON: a block for each row or record."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from rag.errors import Unparsable
from rag.load.build import DocumentBuilder
from rag.load.decode import decode
from rag.load.tables import labelled
from rag.protocols import RawFile
from rag.types import Document

__all__ = ["load", "load_json", "load_jsonl"]

_MAX_DEPTH = 20


def load(raw: RawFile) -> list[Document]:
    """See `Loader.load`: CSV with any delimiter."""
    text = decode(raw.data)
    csv.field_size_limit(1 << 24)
    builder = DocumentBuilder()
    try:
        for row in labelled(csv.reader(io.StringIO(text, newline=""), _dialect(text))):
            builder.add(row, "table")
    except csv.Error as exc:
        raise Unparsable(f"it is no CSV: {exc}") from exc
    return [builder.build(raw, "text/csv")]


def load_jsonl(raw: RawFile) -> list[Document]:
    """JSON Lines: a block for each record, a line `key: value` for each of its values."""
    builder = DocumentBuilder()
    for number, line in enumerate(decode(raw.data).split("\n"), 1):
        if line.strip():
            try:
                builder.add("\n".join(_lines(json.loads(line))), "table")
            except (ValueError, RecursionError) as exc:
                raise Unparsable(f"line {number} is not JSON: {exc}") from exc
    return [builder.build(raw, "application/jsonl")]


def load_json(raw: RawFile) -> list[Document]:
    """JSON: a block for each item of a list at the top, or else for each key."""
    try:
        value = json.loads(decode(raw.data))
    except (ValueError, RecursionError) as exc:
        raise Unparsable(f"it is not JSON: {exc}") from exc
    builder = DocumentBuilder()
    items = value if isinstance(value, list) else [value]
    if isinstance(value, dict):
        items = [{key: item} for key, item in value.items()]
    for item in items:
        builder.add("\n".join(_lines(item)), "table")
    return [builder.build(raw, "application/json")]


def _lines(value: Any, name: str = "", depth: int = 0) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise Unparsable(f"it is nested more than {_MAX_DEPTH} deep")
    match value:
        case dict():
            for key, item in value.items():
                yield from _lines(item, f"{name}.{key}" if name else str(key), depth + 1)
        case list() if any(isinstance(item, dict | list) for item in value):
            for item in value:
                yield from _lines(item, name, depth + 1)
        case list():
            value = ", ".join(str(item) for item in value)
            yield f"{name}: {value}" if name else value
        case None:
            pass
        case _:
            yield f"{name}: {value}" if name else str(value)


def _dialect(text: str) -> type[csv.Dialect]:
    try:
        return csv.Sniffer().sniff(text[:8192], ",;\t|")
    except csv.Error:
        return csv.excel
