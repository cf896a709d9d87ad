"""A vector store, a file in it and a batch as they stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

FileStatus = Literal["in_progress", "completed", "cancelled", "failed"]
T = TypeVar("T")
Scalar = str | int | float | bool


@dataclass(frozen=True)
class FileCounts:
    """Files by status."""

    in_progress: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def total(self) -> int:
        return self.in_progress + self.completed + self.failed + self.cancelled


@dataclass(frozen=True)
class VectorStore:
    """One store. Times are microseconds since 1970."""

    id: str
    tenant_id: str
    name: str
    description: str | None
    metadata: Mapping[str, str] | None
    created_us: int
    last_active_us: int
    expires_days: int | None
    expires_us: int | None
    expired: bool = False
    counts: FileCounts = FileCounts()
    usage_bytes: int = 0


@dataclass(frozen=True)
class StoreSpec:
    """What somebody asked for."""

    tenant_id: str
    name: str = ""
    description: str | None = None
    metadata: Mapping[str, str] | None = None
    expires_days: int | None = None


@dataclass(frozen=True)
class FileSpec:
    """A file to be put into a store."""

    file_id: str
    filename: str
    attributes: Mapping[str, Scalar] | None = None
    chunking: Mapping[str, int] | None = None
    """`max_chunk_size_tokens` and `chunk_overlap_tokens`; None lets the embedder decide."""


@dataclass(frozen=True)
class StoreFile(FileSpec):
    """A file in a store."""

    store_id: str = ""
    batch_id: str | None = None
    created_us: int = 0
    status: FileStatus = "in_progress"
    chunk_tokens: int | None = None
    """Tokens that a chunk has at most, known once it is indexed."""
    usage_bytes: int = 0
    error_code: str | None = None
    error_message: str | None = None


@dataclass(frozen=True)
class Batch:
    """Files that were added together."""

    id: str
    store_id: str
    created_us: int
    cancelled_us: int | None
    counts: FileCounts = FileCounts()


@dataclass(frozen=True)
class Task:
    """What the index has to be told of one file. `revision`: of the row it was read from."""

    tenant_id: str
    store_id: str
    file: StoreFile
    work: Literal["ingest", "remove", "describe"]
    deleted: bool
    revision: int
    attempts: int


@dataclass(frozen=True)
class Page:
    """Where a list begins, how long it is, and which way it goes."""

    limit: int = 20
    newest_first: bool = True
    after: str | None = None
    before: str | None = None


@dataclass(frozen=True)
class Listed(Generic[T]):
    """A page, and whether there is more beyond it in the direction asked."""

    data: list[T]
    has_more: bool
