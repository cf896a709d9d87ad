"""A query's latency at growing index sizes, broken into embed, search and rerank. The index is
filled with the set's own chunks and slight variations of their vectors, so that the graph has the
neighbourhoods of real text."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rag.index.config import IndexConfig
from rag.index.edge import EdgeIndex
from rag.index.manifest import Manifest
from rag.protocols import Embedder, TokenVectors
from rag.retrieve.config import RetrieveConfig
from rag.retrieve.maxsim import MaxSimReranker
from rag.retrieve.retriever import Retriever, Timings
from rag.types import Chunk, Query, Scope, Span, Vectors

__all__ = ["measure"]

SCOPE = Scope("benchmark", "latency")
_BATCH = 2_000


def measure(
    size: int,
    chunks: Sequence[Chunk],
    vectors: Vectors,
    questions: Sequence[str],
    embedder: Embedder,
    tokens: TokenVectors,
    reranked: int,
) -> dict[str, Any]:
    """Fill an index with `size` chunks, build its graph, and ask every question without a
    reranker, then `reranked` of them with MaxSim over the default number of candidates."""
    with tempfile.TemporaryDirectory(prefix="corral-latency-") as folder:
        manifest = Manifest(embedder=embedder.name, dimension=embedder.dimension)
        config = IndexConfig(optimize_after=10**9)
        index = EdgeIndex(Path(folder), config, manifest)
        began = time.perf_counter()
        _fill(index, size, chunks, vectors)
        filled = time.perf_counter()
        index.optimize()
        built = time.perf_counter()
        plain = Retriever(index, embedder, RetrieveConfig())
        reranking = Retriever(
            index, embedder, RetrieveConfig(rerank="maxsim"), reranker=MaxSimReranker(tokens)
        )
        found = {
            "chunks": size,
            "fill_s": round(filled - began, 1),
            "graph_s": round(built - filled, 1),
            "hnsw_recall@10": _recall(index, embedder, questions),
            "default": _percentiles(plain, questions),
        }
        if reranked:
            found["with_maxsim"] = _percentiles(reranking, questions[:reranked])
        index.close()
    return found


def _fill(index: EdgeIndex, size: int, chunks: Sequence[Chunk], vectors: Vectors) -> None:
    rng = np.random.default_rng(0)
    for at in range(0, size, _BATCH):
        rows = np.arange(at, min(size, at + _BATCH))
        picked = vectors[rows % len(chunks)]
        # A noise of about half the vector's length: a cosine of 0.9 with the original.
        noise = rng.normal(size=picked.shape) * (0.0 if at < len(chunks) else 0.025)
        varied = picked + noise.astype(np.float32)
        varied /= np.linalg.norm(varied, axis=1, keepdims=True)
        batch = [
            replace(
                chunks[row % len(chunks)],
                id="",
                document_id=f"d{row}",
                span=Span(0, len(chunks[row % len(chunks)].text)),
            )
            for row in rows.tolist()
        ]
        index.upsert(SCOPE, batch, varied)


def _recall(index: EdgeIndex, embedder: Embedder, questions: Sequence[str]) -> float:
    shares = []
    for vector in embedder.encode(questions, "query"):
        exact, graph = (
            {hit.chunk.id for hit in index.search(SCOPE, Query(vector=vector, exact=exact))}
            for exact in (True, False)
        )
        shares.append(len(exact & graph) / len(exact))
    return round(float(np.mean(shares)), 4)


def _percentiles(retriever: Retriever, questions: Sequence[str]) -> dict[str, dict[str, float]]:
    retriever.search(SCOPE, questions[0])
    timings: list[Timings] = []
    totals = []
    for question in questions:
        began = time.perf_counter()
        timings.append(retriever.search(SCOPE, question).timings)
        totals.append(time.perf_counter() - began)
    parts = {
        "embed": [one.embed_s for one in timings],
        "search": [one.search_s for one in timings],
        "rerank": [one.rerank_s for one in timings],
        "total": totals,
    }
    return {
        name: {
            "p50_ms": round(1_000 * float(np.quantile(values, 0.5)), 2),
            "p99_ms": round(1_000 * float(np.quantile(values, 0.99)), 2),
        }
        for name, values in parts.items()
        if any(values)
    }
