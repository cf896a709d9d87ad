"""What `/v1/vector_stores` and the tool `file_search` take, in OpenAI's terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

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

if TYPE_CHECKING:
    from rag.types import Filter
    from serving.retrieval.library import Search

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


class FileSearchTool(_Asked):
    """The tool of `/v1/responses`: answer from vector stores."""

    type: Literal["file_search"]
    vector_store_ids: list[FileId] = Field(min_length=1, max_length=16)
    filters: Comparison | Compound | None = None
    max_num_results: int = Field(20, ge=1, le=50)
    ranking_options: RankingOptions | None = None


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


def to_search(queries: Sequence[str], asked: SearchRequest | FileSearchTool) -> Search:
    """The same in the index's terms."""
    from serving.retrieval.library import Search

    options = asked.ranking_options or RankingOptions()
    hybrid = options.hybrid_search
    return Search(
        queries,
        to_filter(asked.filters),
        asked.max_num_results,
        least_score=options.score_threshold,
        rerank=options.ranker != "none",
        weights=None if hybrid is None else (hybrid.embedding_weight, hybrid.text_weight),
    )
