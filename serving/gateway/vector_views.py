"""What `/v1/vector_stores` answers, in OpenAI's terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel

from serving.gateway.vector_models import ExpiresAfter
from serving.store.vector_rows import Batch, FileCounts, StoreFile, VectorStore


class Counts(BaseModel):
    """Files by status."""

    cancelled: int
    completed: int
    failed: int
    in_progress: int
    total: int


class StoreView(BaseModel):
    """A vector store."""

    id: str
    object: Literal["vector_store"]
    created_at: int
    name: str
    description: str | None
    status: Literal["expired", "in_progress", "completed"]
    usage_bytes: int
    file_counts: Counts
    last_active_at: int
    metadata: dict[str, str] | None
    expires_after: ExpiresAfter | None
    expires_at: int | None


class _List(BaseModel):
    object: Literal["list"]
    has_more: bool
    first_id: str | None
    last_id: str | None


class StoreList(_List):
    """Vector stores; `has_more` says whether there are others."""

    data: list[StoreView]


class StoreDeleted(BaseModel):
    """It is gone."""

    id: str
    object: Literal["vector_store.deleted"]
    deleted: bool


class LastError(BaseModel):
    """Why a file could not be indexed."""

    code: Literal["server_error", "unsupported_file", "invalid_file"]
    message: str


class StoreFileView(BaseModel):
    """A file in a vector store."""

    id: str
    object: Literal["vector_store.file"]
    created_at: int
    vector_store_id: str
    status: Literal["in_progress", "completed", "cancelled", "failed"]
    last_error: LastError | None
    usage_bytes: int
    attributes: dict[str, Any] | None
    chunking_strategy: dict[str, Any]


class StoreFileList(_List):
    """Files in a vector store."""

    data: list[StoreFileView]


class StoreFileDeleted(BaseModel):
    """It is out of the store. The upload stays."""

    id: str
    object: Literal["vector_store.file.deleted"]
    deleted: bool


class BatchView(BaseModel):
    """Files that were added together."""

    id: str
    object: Literal["vector_store.files_batch"]
    created_at: int
    vector_store_id: str
    status: Literal["in_progress", "completed", "cancelled", "failed"]
    file_counts: Counts


class TextPart(BaseModel):
    """A passage's text."""

    type: Literal["text"]
    text: str


class ContentPage(BaseModel):
    """What was read of a file, passage by passage."""

    object: Literal["vector_store.file_content.page"]
    data: list[TextPart]
    has_more: bool
    next_page: str | None


class SearchResult(BaseModel):
    """A passage that was found, and the file that it is from."""

    file_id: str
    filename: str
    score: float
    attributes: dict[str, Any]
    content: list[TextPart]


class SearchPage(BaseModel):
    """Passages, the best first."""

    object: Literal["vector_store.search_results.page"]
    search_query: list[str]
    data: list[SearchResult]
    has_more: bool
    next_page: str | None


def store_view(store: VectorStore) -> dict[str, Any]:
    """OpenAI's vector store object."""
    days = store.expires_days
    status = "in_progress" if store.counts.in_progress else "completed"
    return {
        "id": store.id,
        "object": "vector_store",
        "created_at": _seconds(store.created_us),
        "name": store.name,
        "description": store.description,
        "status": "expired" if store.expired else status,
        "usage_bytes": store.usage_bytes,
        "file_counts": _counts(store.counts),
        "last_active_at": _seconds(store.last_active_us),
        "metadata": store.metadata,
        "expires_after": None if days is None else {"anchor": "last_active_at", "days": days},
        "expires_at": None if store.expires_us is None else _seconds(store.expires_us),
    }


def file_view(file: StoreFile) -> dict[str, Any]:
    """OpenAI's vector store file object."""
    error = {"code": file.error_code, "message": file.error_message}
    return {
        "id": file.file_id,
        "object": "vector_store.file",
        "created_at": _seconds(file.created_us),
        "vector_store_id": file.store_id,
        "status": file.status,
        "last_error": error if file.status == "failed" else None,
        "usage_bytes": file.usage_bytes if file.status == "completed" else 0,
        "attributes": file.attributes,
        "chunking_strategy": _chunking(file),
    }


def batch_view(batch: Batch) -> dict[str, Any]:
    """OpenAI's file batch object."""
    counts = batch.counts
    if batch.cancelled_us is not None:
        status = "cancelled"
    elif counts.in_progress:
        status = "in_progress"
    else:
        status = "failed" if counts.total and counts.failed == counts.total else "completed"
    return {
        "id": batch.id,
        "object": "vector_store.files_batch",
        "created_at": _seconds(batch.created_us),
        "vector_store_id": batch.store_id,
        "status": status,
        "file_counts": _counts(counts),
    }


def list_view(data: Sequence[dict[str, Any]], has_more: bool) -> dict[str, Any]:
    """A page of any of them."""
    ends = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {
        "object": "list", "data": data, "has_more": has_more,
        "first_id": ends[0], "last_id": ends[1],
    }  # fmt: skip


def _chunking(file: StoreFile) -> dict[str, Any]:
    """As asked; of `auto`, what it came to, which is known once the file is indexed."""
    if file.chunking is not None:
        return {"type": "static", "static": dict(file.chunking)}
    if file.chunk_tokens is None:
        return {"type": "other"}
    sizes = {"max_chunk_size_tokens": file.chunk_tokens, "chunk_overlap_tokens": 0}
    return {"type": "static", "static": sizes}


def _counts(counts: FileCounts) -> dict[str, int]:
    return {**vars(counts), "total": counts.total}


def _seconds(at_us: int) -> int:
    return at_us // 1_000_000
