"""Every retrieval configuration over every labelled set, in one table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge

from benchmarks.rag.cache import CachedEmbedder
from benchmarks.rag.chunks import chunks_of
from benchmarks.rag.data import Labelled
from rag.evaluate import metrics
from rag.evaluate.intervals import compare, estimate
from rag.evaluate.labelled import Question
from rag.evaluate.run import Evaluation, evaluate_retrieval
from rag.index.config import IndexConfig
from rag.index.edge import EdgeIndex
from rag.index.manifest import Manifest
from rag.protocols import Generator
from rag.retrieve.config import RetrieveConfig
from rag.retrieve.maxsim import MaxSimReranker
from rag.retrieve.retriever import Retriever
from rag.types import Chunk, Query, Scope

__all__ = ["CONFIGURATIONS", "Prepared", "bm25_agreement", "hnsw_recall", "measure", "prepare"]

SCOPE = Scope("benchmark", "set")
DEFAULT = "default"
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "dense": {"mode": "dense"},
    "BM25": {"mode": "text"},
    "RRF": {"fusion": {"method": "rrf"}},
    "DBSF": {"fusion": {"method": "dbsf"}},
    "RRF, dense ×2": {"fusion": {"method": "rrf", "dense_weight": 2}},
    "DBSF, dense ×2": {"fusion": {"method": "dbsf", "dense_weight": 2}},
    "dense + MaxSim": {"mode": "dense", "rerank": "maxsim"},
    "DBSF + MaxSim": {"fusion": {"method": "dbsf"}, "rerank": "maxsim"},
    "DBSF + MaxSim alone": {
        "fusion": {"method": "dbsf"}, "rerank": "maxsim", "rerank_weight": 1.0,
    },
    "DBSF + MMR 0.7": {"fusion": {"method": "dbsf"}, "mmr_lambda": 0.7},
    "DBSF, duplicates kept": {"fusion": {"method": "dbsf"}, "near_duplicate": None},
}  # fmt: skip
GENERATED: dict[str, dict[str, Any]] = {
    "multi-query (2)": {"rewrite": {"multi_query": 2}},
    "HyDE": {"rewrite": {"hyde": True}},
}
CHUNK_TOKENS = {"chunking_eval": 128}


@dataclass(frozen=True, slots=True)
class Prepared:
    """One labelled set, indexed."""

    labelled: Labelled
    chunks: list[Chunk]
    vectors: np.ndarray[Any, np.dtype[np.float32]]
    index: EdgeIndex
    embedder: CachedEmbedder


def prepare(
    labelled: Labelled, embedder: CachedEmbedder, folder: Path, config: IndexConfig | None = None
) -> Prepared:
    """Split, embed and index the set in `folder`, which is empty."""
    size = CHUNK_TOKENS.get(labelled.name, embedder.max_tokens)
    chunks = [
        chunk
        for name, text in labelled.documents.items()
        for chunk in chunks_of(name, text, embedder, size)
    ]
    vectors = embedder.encode([chunk.embedded for chunk in chunks])
    config = config or IndexConfig()
    manifest = Manifest(embedder=embedder.name, dimension=embedder.dimension, bm25=config.bm25)
    index = EdgeIndex(folder, config, manifest)
    index.upsert(SCOPE, chunks, vectors)
    return Prepared(labelled, chunks, vectors, index, embedder)


def measure(
    prepared: Prepared, names: Sequence[str], generator: Generator | None, generated: int
) -> dict[str, Any]:
    """The metrics of the default and of each configuration named, compared with the default on the
    same questions. Those that need a language model run over the first `generated` questions."""
    questions = prepared.labelled.questions
    wanted = [DEFAULT, *(name for name in names if name != DEFAULT)]
    found = [_evaluate(prepared, n, CONFIGURATIONS[n], questions, None) for n in wanted]
    rows = {one.name: _row(one, found[0]) for one in found}
    if generator is not None and generated:
        first = questions[:generated]
        base = _evaluate(prepared, "default, same questions", {}, first, None)
        rows[base.name] = _row(base, base)
        for name, config in GENERATED.items():
            one = _evaluate(prepared, name, config, first, generator)
            rows[name] = _row(one, base)
    return {
        "documents": len(prepared.labelled.documents),
        "chunks": len(prepared.chunks),
        "questions": len(questions),
        "configurations": rows,
    }


def bm25_agreement(prepared: Prepared, k: int = 10) -> dict[str, float]:
    """nDCG@k of the index's BM25 and of bm25s over the same tokens, ranking chunks' documents."""
    import bm25s  # type: ignore[import-untyped]

    average, tokens = _tokens(prepared)
    oracle = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    oracle.index(tokens, show_progress=False)
    config = prepared.index.manifest.bm25
    words = qdrant_edge.Bm25(qdrant_edge.Bm25Config(b=0, language=config.language))
    ours, theirs = [], []
    for question in prepared.labelled.questions:
        query = [str(index) for index in words.embed_query(question.question).indices]
        scores = oracle.get_scores([token for token in query if token in oracle.vocab_dict])
        order = np.argsort(-scores, kind="stable")[: k * 3]
        theirs.append(_ndcg(question, [prepared.chunks[at] for at in order], k))
        hits = prepared.index.search(SCOPE, Query(text=question.question, limit=k * 3))
        ours.append(_ndcg(question, [hit.chunk for hit in hits], k))
    return {
        "average_tokens": average,
        "average_tokens_configured": config.average_tokens,
        "ours": float(np.mean(ours)),
        "bm25s": float(np.mean(theirs)),
        "difference": float(np.mean(ours) - np.mean(theirs)),
    }


def hnsw_recall(prepared: Prepared, k: int = 10) -> dict[str, float]:
    """Share of the exact first k that the graph finds, over the set's questions."""
    prepared.index.optimize()
    questions = [question.question for question in prepared.labelled.questions]
    shares = []
    for vector in prepared.embedder.encode(questions, "query"):
        exact, graph = (
            {
                hit.chunk.id
                for hit in prepared.index.search(SCOPE, Query(vector=vector, limit=k, exact=exact))
            }
            for exact in (True, False)
        )
        shares.append(len(exact & graph) / len(exact))
    return {f"recall@{k}": float(np.mean(shares)), "chunks": float(len(prepared.chunks))}


def _evaluate(
    prepared: Prepared,
    name: str,
    changes: dict[str, Any],
    questions: Sequence[Question],
    generator: Generator | None,
) -> Evaluation:
    config = RetrieveConfig.model_validate(changes)
    reranker = MaxSimReranker(prepared.embedder) if config.rerank == "maxsim" else None
    retriever = Retriever(
        prepared.index, prepared.embedder, config, reranker=reranker, generator=generator
    )
    return evaluate_retrieval(name, retriever, SCOPE, questions)


def _row(one: Evaluation, base: Evaluation) -> dict[str, Any]:
    main = next(iter(one.values))
    return {
        "metrics": {
            name: _rounded(estimate(values).model_dump()) for name, values in one.values.items()
        },
        "against_default": {
            "metric": main,
            **_rounded(compare(one.values[main], base.values[main]).difference.model_dump()),
            "p_value": round(compare(one.values[main], base.values[main]).p_value, 4),
        },
    }


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def _ndcg(question: Question, chunks: Sequence[Chunk], k: int) -> float:
    ranked = list(dict.fromkeys(chunk.document_id for chunk in chunks))
    return metrics.ndcg(ranked, question.relevant, k)


def _tokens(prepared: Prepared) -> tuple[float, list[list[str]]]:
    """Each chunk's tokens as the index sees them, and how many a chunk has on average. With b=0 a
    weight is tf (k + 1) / (tf + k), from which tf follows."""
    k = 1.2
    language = prepared.index.manifest.bm25.language
    model = qdrant_edge.Bm25(qdrant_edge.Bm25Config(k=k, b=0, language=language))
    tokens = []
    for chunk in prepared.chunks:
        sparse = model.embed_document(chunk.embedded)
        counts = [round(v * k / (k + 1 - v)) for v in sparse.values]
        assert all(count >= 1 and math.isfinite(count) for count in counts)
        pairs = zip(sparse.indices, counts, strict=True)
        tokens.append([str(index) for index, count in pairs for _ in range(count)])
    return sum(len(one) for one in tokens) / len(tokens), tokens
