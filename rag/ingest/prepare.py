"""One file's way to chunks: read → hash → parse → split. Runs in threads."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from rag.errors import RagError
from rag.load.source import Entry
from rag.protocols import RawFile
from rag.split.splitter import Splitter
from rag.types import Chunk, Document

__all__ = ["Parser", "Prepared", "prepare"]


class Parser(Protocol):
    """`ParserPool`, or `InProcess` in tests and where the documents are trusted."""

    @property
    def size(self) -> int:
        """How many files it parses at once."""
        ...

    def parse(self, raw: RawFile) -> Sequence[Document]:
        """See `Loader.load`."""
        ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """A file and what became of it: its chunks, an error, or nothing if it is unchanged."""

    entry: Entry
    sha256: str = ""
    size: int = 0
    chunks: list[Chunk] | None = None
    documents: int = 0
    error: str = ""
    stage_s: dict[str, float] = field(default_factory=dict)


def prepare(
    entry: Entry, parser: Parser, splitter: Splitter, unchanged: Callable[[str], bool]
) -> Prepared:
    """Never raises for what is wrong with the file. `unchanged` is asked with its SHA-256."""
    began = time.perf_counter()
    try:
        raw = entry.read()
    except RagError as exc:
        return Prepared(entry, error=str(exc))
    if entry.metadata:
        raw = replace(raw, metadata={**entry.metadata, **raw.metadata})
    sha256 = hashlib.sha256(raw.data).hexdigest()
    size = len(raw.data)
    stage_s = {"read": time.perf_counter() - began}
    if unchanged(sha256):
        return Prepared(entry, sha256, size, stage_s=stage_s)
    began = time.perf_counter()
    try:
        documents = parser.parse(raw)
    except RagError as exc:
        return Prepared(entry, sha256, size, error=str(exc), stage_s=stage_s)
    parsed = time.perf_counter()
    chunks = [chunk for document in documents for chunk in splitter.split(document)]
    stage_s |= {"parse": parsed - began, "split": time.perf_counter() - parsed}
    return Prepared(entry, sha256, size, chunks, len(documents), stage_s=stage_s)
