"""How chunks are indexed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from configs import StrictModel

__all__ = ["Bm25Config", "HnswConfig", "IndexConfig", "MetadataType", "Quantization"]

MetadataType = Literal["keyword", "integer", "float", "bool"]
Quantization = Literal["none", "int8", "binary"]


class HnswConfig(StrictModel):
    """The graph of approximate nearest neighbours (Malkov and Yashunin, 2016)."""

    m: int = Field(16, ge=4, le=128)
    """Edges of a node."""
    ef_construct: int = Field(128, ge=8)
    """Candidates kept while a node is inserted."""
    ef: int = Field(128, ge=8)
    """Candidates kept while searching: more finds more and takes longer."""
    exact_below_kib: int = Field(10_000, ge=1)
    """A store whose vectors are fewer than this is searched exactly (6,600 of 384 dimensions)."""


class Bm25Config(StrictModel):
    """Term weights (Robertson and Zaragoza, 2009). The inverse document frequency is the
    store's own: what one store holds never changes another's ranking."""

    language: str = "english"
    """Whose stop words and stemmer."""
    k1: float = Field(1.2, ge=0)
    b: float = Field(0.75, ge=0, le=1)
    average_tokens: float = Field(100.0, gt=0)
    """Of a chunk, after stop words: part of the stored weights, so fixed when an index is made."""


class IndexConfig(StrictModel):
    """Where the vectors are and how they are searched."""

    url: str | None = None
    """A Qdrant server, `http://host:6333`. None: the engine embedded in this process."""
    path: str = "index/default"
    """The embedded engine's folder; a relative one lies under `$CORRAL_HOME`."""
    collection: str = "corral"
    """On a server."""
    api_key_env: str = "QDRANT_API_KEY"
    """The environment variable that holds the server's key, if it wants one."""
    timeout_s: int = Field(30, ge=1)
    """For one request to a server."""
    hnsw: HnswConfig = HnswConfig()
    bm25: Bm25Config = Bm25Config()
    quantization: Quantization = "none"
    """Search small codes first (`int8`: a quarter of the memory, `binary`: a thirty-second), then
    rescore `oversampling` times as many with the whole vectors."""
    oversampling: float = Field(2.0, ge=1)
    metadata_indexes: dict[str, MetadataType] = Field(default_factory=dict)
    """Metadata keys that filters use often, and what they hold."""
    optimize_after: int = Field(10_000, ge=1)
    """Vectors outside the graph before the embedded engine builds it anew; until then they are
    searched exactly."""
