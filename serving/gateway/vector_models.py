"""What `/v1/vector_stores` takes and gives, in OpenAI's terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_validator,
)

from serving.store.vector_rows import Batch, FileCounts, StoreFile, VectorStore

if TYPE_CHECKING:
    from rag.types import Filter

MAX_BATCH = 2000
_EXACT = 2**53


def _text(value: str) -> str:
    """No store holds these in every field."""
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise ValueError("is no text: it holds a NUL, or half of a surrogate pair")
    return value


_Plain = AfterValidator(_text)
_Key = Annotated[str, Field(min_length=1, max_length=64), _Plain]
_Text512 = Annotated[StrictStr, Field(max_length=512), _Plain]
_Integer = Annotated[StrictInt, Field(ge=-_EXACT, le=_EXACT)]
_Number = Annotated[StrictFloat, Field(allow_inf_nan=False)]
_Value = StrictBool | _Integer | _Number | _Text512
Attributes = Annotated[dict[_Key, _Value], Field(max_length=16)]
Metadata = Annotated[dict[_Key, _Text512], Field(max_length=16)]
FileId = Annotated[str, Field(min_length=1, max_length=64), _Plain]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class StaticSizes(_Asked):
    """Sizes in the embedder's tokens."""

    max_chunk_size_tokens: int = Field(ge=100, le=4096)
    """Of a passage. What is more than the embedder takes is embedded in pieces, found whole."""
    chunk_overlap_tokens: int = Field(ge=0)
    """That a passage repeats of the one before it: at most half of the size."""

    @model_validator(mode="after")
    def _half(self) -> StaticSizes:
        if self.chunk_overlap_tokens > self.max_chunk_size_tokens // 2:
            raise ValueError("chunk_overlap_tokens may be at most half of max_chunk_size_tokens")
        return self


class Chunking(_Asked):
    """How files are cut into passages; `auto` follows headings and the embedder's size."""

    type: Literal["auto", "static"]
    static: StaticSizes | None = None

    @model_validator(mode="after")
    def _sizes(self) -> Chunking:
        if (self.type == "static") != (self.static is not None):
            raise ValueError("`static` goes with type `static`, and is needed there")
        return self

    @property
    def sizes(self) -> dict[str, int] | None:
        """None for `auto`."""
        return None if self.static is None else self.static.model_dump()


class ExpiresAfter(_Asked):
    """When a store ends by itself."""

    anchor: Literal["last_active_at"]
    days: int = Field(ge=1, le=365)


class StoreRequest(_Asked):
    """A store to be made."""

    name: Annotated[str, Field(max_length=256), _Plain] | None = None
    description: Annotated[str, Field(max_length=1024), _Plain] | None = None
    file_ids: list[FileId] | None = Field(None, max_length=MAX_BATCH)
    """Files to begin with."""
    chunking_strategy: Chunking | None = None
    """Of those files."""
    expires_after: ExpiresAfter | None = None
    metadata: Metadata | None = None
    """Anything."""


class StoreChange(_Asked):
    """What is to be different; the rest stays."""

    name: Annotated[str, Field(max_length=256), _Plain] | None = None
    expires_after: ExpiresAfter | None = None
    metadata: Metadata | None = None


class FileRequest(_Asked):
    """A file to be put into a store."""

    file_id: FileId
    """Of an uploaded file."""
    attributes: Attributes | None = None
    """What searches can filter by."""
    chunking_strategy: Chunking | None = None


class FileChange(_Asked):
    """Attributes in place of the old ones."""

    attributes: Attributes | None


class BatchRequest(_Asked):
    """Files to be put into a store together: `file_ids`, or `files` with attributes of each."""

    file_ids: list[FileId] | None = Field(None, min_length=1, max_length=MAX_BATCH)
    files: list[FileRequest] | None = Field(None, min_length=1, max_length=MAX_BATCH)
    attributes: Attributes | None = None
    """Of all `file_ids`."""
    chunking_strategy: Chunking | None = None
    """Of all `file_ids`."""

    @model_validator(mode="after")
    def _either(self) -> BatchRequest:
        if (self.file_ids is None) == (self.files is None):
            raise ValueError("give either file_ids or files")
        return self

    def all_files(self) -> list[FileRequest]:
        """One request a file."""
        if self.files is not None:
            return self.files
        return [
            FileRequest(
                file_id=id, attributes=self.attributes, chunking_strategy=self.chunking_strategy
            )
            for id in self.file_ids or ()
        ]


class Comparison(_Asked):
    """A condition on one attribute. A file without it fulfils `ne` and `nin` only."""

    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
    key: _Key
    value: _Value | Annotated[list[_Value], Field(max_length=256)]


class Compound(_Asked):
    """All, or any, of several conditions."""

    type: Literal["and", "or"]
    filters: list[Comparison | Compound] = Field(min_length=1, max_length=64)


class HybridSearch(_Asked):
    """How much either list counts."""

    embedding_weight: float = Field(ge=0, le=1000)
    text_weight: float = Field(ge=0, le=1000)

    @model_validator(mode="after")
    def _some(self) -> HybridSearch:
        if self.embedding_weight == self.text_weight == 0:
            raise ValueError("embedding_weight and text_weight are both 0: nothing would be found")
        return self


class RankingOptions(_Asked):
    """How passages are ordered, and which are too bad to be shown."""

    ranker: Literal["none", "auto", "default-2024-11-15", "default_2024_08_21"] = "auto"
    """`none` leaves out the reranking model, if there is one."""
    score_threshold: float = Field(0.0, ge=0, le=1)
    hybrid_search: HybridSearch | None = None


_Query = Annotated[str, Field(min_length=1, max_length=8192), _Plain]


class SearchRequest(_Asked):
    """What to look for in a store."""

    query: _Query | Annotated[list[_Query], Field(min_length=1, max_length=16)]
    filters: Comparison | Compound | None = None
    """Conditions on the files' attributes."""
    max_num_results: int = Field(10, ge=1, le=50)
    ranking_options: RankingOptions | None = None
    rewrite_query: bool = False
    """Not done here."""

    @property
    def queries(self) -> list[str]:
        return [self.query] if isinstance(self.query, str) else self.query


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


def to_filter(asked: Comparison | Compound | None) -> Filter | None:
    """The filter in the index's terms."""
    if asked is None:
        return None
    from rag.types import AllOf, AnyOf, Compare

    if isinstance(asked, Comparison):
        value = tuple(asked.value) if isinstance(asked.value, list) else asked.value
        return Compare(asked.type, asked.key, value)
    parts = tuple(found for part in asked.filters if (found := to_filter(part)) is not None)
    return AllOf(parts) if asked.type == "and" else AnyOf(parts)


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
