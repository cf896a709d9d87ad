"""The seams of retrieval. serving adapts its replicas to them; the fakes are shipped code.

All are synchronous and safe to call from several threads: ingestion and search run in threads,
and a caller with an event loop uses `asyncio.to_thread`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from rag.types import Chunk, Document, Hit, Query, Scalar, Scope, Vectors

__all__ = [
    "Embedder",
    "Generator",
    "Loader",
    "Message",
    "RawFile",
    "Reranker",
    "TokenVectors",
    "Tokens",
    "VectorIndex",
]

EmbedKind = Literal["document", "query"]


@dataclass(frozen=True, slots=True)
class RawFile:
    """Bytes to parse, and what is known of them."""

    uri: str
    data: bytes
    media_type: str = ""
    """As the source declares it; the loader is chosen by the bytes first."""
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
    """Goes into every document read from it."""


class Loader(Protocol):
    """Parses one kind of file. Runs in a child process with limits."""

    def load(self, raw: RawFile) -> Sequence[Document]:
        """The documents in it, usually one. Raises rag.errors.Unparsable."""
        ...


class Tokens(Protocol):
    """How an embedder counts: what splitters need of it."""

    @property
    def max_tokens(self) -> int:
        """Tokens of text in one input; the special tokens around it are not counted."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text without special ones, as they are when it is encoded alone."""
        ...

    def token_spans(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """(tokens, 2) character ranges of each text's tokens, in order."""
        ...


class Embedder(Tokens, Protocol):
    """Texts to vectors."""

    @property
    def name(self) -> str:
        """The model and what else changes its vectors; an index refuses another name."""
        ...

    @property
    def dimension(self) -> int: ...

    def encode(self, texts: Sequence[str], kind: EmbedKind = "document") -> Vectors:
        """(len(texts), dimension) float32, L2-normalised. Raises rag.errors.TextTooLong for a
        text of more than `max_tokens`, never truncates; rag.errors.EmbedderUnavailable."""
        ...


class TokenVectors(Protocol):
    """An embedder that gives its token vectors too, for late interaction (MaxSim)."""

    def encode_tokens(self, texts: Sequence[str]) -> list[Vectors]:
        """(tokens, dimension) float32 for each text, every row L2-normalised."""
        ...


class Reranker(Protocol):
    """Scores passages against a query with a stronger model than retrieval's."""

    def score(self, query: str, passages: Sequence[str]) -> list[float]:
        """One score a passage, higher is better; they compare within one call."""
        ...


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Generator(Protocol):
    """A language model, for query rewriting, answers and judging."""

    def generate(self, messages: Sequence[Message], *, max_tokens: int) -> str:
        """The answer's text, greedy."""
        ...


class VectorIndex(Protocol):
    """Chunks with their vectors. What a call acknowledged survives a kill."""

    def upsert(self, scope: Scope, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Store or replace by chunk id. Row i of `vectors` belongs to the i-th chunk that is not
        a parent (`is_parent`); parents carry none. Durable when it returns."""
        ...

    def delete(self, scope: Scope, chunk_ids: Collection[str]) -> None:
        """Remove; ids that are not there are no error. Durable when it returns."""
        ...

    def search(self, scope: Scope, query: Query) -> list[Hit]:
        """Best first; parents are never found."""
        ...

    def get(self, scope: Scope, chunk_ids: Sequence[str]) -> list[Chunk]:
        """The chunks with these ids that exist, in the order asked; parents included."""
        ...

    def ids(self, scope: Scope) -> Iterator[str]:
        """Every chunk id in the scope, in no order."""
        ...
