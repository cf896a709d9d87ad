"""What the rooms of retrieval hand each other: documents, chunks, searches and hits.

Everything is frozen. Offsets are characters (Unicode code points) of `Document.text`, never bytes.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "AllOf",
    "AnyOf",
    "Block",
    "BlockKind",
    "Chunk",
    "Compare",
    "Document",
    "Filter",
    "Hit",
    "Query",
    "Scalar",
    "Scope",
    "Span",
    "Vectors",
    "document_id",
]

Scalar = str | int | float | bool
"""What metadata may hold: the attribute types of OpenAI's vector stores."""

Vectors = NDArray[np.float32]
"""(count, dimension) float32; L2-normalised where the embedder normalises."""

BlockKind = Literal["heading", "paragraph", "list", "table", "code", "quote"]


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Half-open range of characters."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start

    def of(self, text: str) -> str:
        """The characters of `text` in this range."""
        return text[self.start : self.end]

    def overlap(self, other: Span) -> int:
        """Characters that both ranges hold."""
        return max(0, min(self.end, other.end) - max(self.start, other.start))


@dataclass(frozen=True, slots=True)
class Block:
    """One piece of a document's structure. Blocks are in order and do not overlap."""

    span: Span
    kind: BlockKind = "paragraph"
    heading_path: tuple[str, ...] = ()
    """Headings above it, the outermost first; a heading's own text is the last of its path."""
    page: int | None = None
    """From 1; slides and sheets count as pages."""


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed document. `text` is what spans refer to: the decoded source itself for plain
    text, Markdown and code, the extracted text for every other type."""

    id: str
    """A UUID that follows from `uri` (see `document_id`)."""
    uri: str
    title: str
    media_type: str
    text: str
    blocks: tuple[Block, ...]
    sha256: str
    """Of the source's bytes, in hexadecimal."""
    metadata: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage to embed and to cite; `text` is exactly `span.of(document.text)`."""

    document_id: str
    span: Span
    text: str
    position: int
    """Its number among the document's chunks of its level, from 0."""
    uri: str = ""
    title: str = ""
    context: str = ""
    """What is embedded before `text` (the heading path), with its line end; "" for nothing."""
    heading_path: tuple[str, ...] = ()
    page: int | None = None
    """Where it begins."""
    parent_id: str | None = None
    """The larger chunk around it. Parents themselves are stored but not embedded."""
    is_parent: bool = False
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
    id: str = ""
    """A UUID that follows from everything above: the same id is the same point."""

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", self._hashed())

    @property
    def embedded(self) -> str:
        """What the embedder gets."""
        return self.context + self.text

    def _hashed(self) -> str:
        parts = (
            self.document_id, self.span.start, self.span.end, self.text, self.position, self.uri,
            self.title, self.context, self.heading_path, self.page, self.parent_id, self.is_parent,
            sorted(self.metadata.items()),
        )  # fmt: skip
        return _uuid(json.dumps(parts, ensure_ascii=False, separators=(",", ":")))


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose chunks: every call to an index names one, and sees nothing beyond it."""

    tenant: str
    store: str


@dataclass(frozen=True, slots=True)
class Compare:
    """A condition on one metadata key; a chunk without the key fulfils `ne` and `nin` only."""

    op: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
    key: str
    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every one of the filters holds."""

    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of the filters holds."""

    filters: tuple[Filter, ...]


Filter = Compare | AllOf | AnyOf


@dataclass(frozen=True, slots=True)
class Query:
    """One search of an index: by `vector` (dense) or by `text` (BM25), never both. Fusion is
    `rag.retrieve`'s."""

    text: str | None = None
    vector: NDArray[np.float32] | None = None
    """(dimension,) float32."""
    limit: int = 10
    filter: Filter | None = None
    with_vectors: bool = False
    """Give each hit its dense vector."""
    exact: bool = False
    """Compare with every vector instead of walking the graph."""

    def __post_init__(self) -> None:
        if (self.text is None) == (self.vector is None):
            raise ValueError("a Query has either a text or a vector")


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found. Scores compare only within one answer."""

    chunk: Chunk
    score: float
    vector: NDArray[np.float32] | None = None


def document_id(uri: str) -> str:
    """The id of the document at `uri`: a UUID, the same on every machine."""
    return _uuid(uri)


def _uuid(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return str(uuid.UUID(bytes=digest[:16], version=5))
