"""Metrics of one question's ranking, each named as the literature names it.

`ranked` are ids, best first, without repetition; `relevant` are grades by id, where 0 and absent
both mean not relevant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rag.types import Span

__all__ = [
    "context_precision",
    "ndcg",
    "recall",
    "reciprocal_rank",
    "span_precision",
    "span_recall",
]


def ndcg(ranked: Sequence[str], relevant: Mapping[str, int], k: int) -> float:
    """Normalised discounted cumulative gain at `k` (Järvelin and Kekäläinen, 2002), with the grade
    itself as gain, as trec_eval has it."""
    gains = sorted((g for g in relevant.values() if g > 0), reverse=True)[:k]
    ideal = sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))
    found = sum(
        max(0, relevant.get(id, 0)) / math.log2(rank + 1) for rank, id in enumerate(ranked[:k], 1)
    )
    return found / ideal if ideal else 0.0


def recall(ranked: Sequence[str], relevant: Mapping[str, int], k: int) -> float:
    """Share of what is relevant among the first `k`; with `k` the size of the context, this is
    context recall over labelled ids."""
    wanted = {id for id, grade in relevant.items() if grade > 0}
    return len(wanted & set(ranked[:k])) / len(wanted) if wanted else 0.0


def reciprocal_rank(ranked: Sequence[str], relevant: Mapping[str, int], k: int) -> float:
    """1 / rank of the first relevant one among the first `k`; their mean is MRR@k."""
    for rank, id in enumerate(ranked[:k], 1):
        if relevant.get(id, 0) > 0:
            return 1 / rank
    return 0.0


def context_precision(ranked: Sequence[str], relevant: Mapping[str, int], k: int) -> float:
    """Σ (precision at rank · whether it is relevant) / relevant ones found, over the first `k`."""
    found, total = 0, 0.0
    for rank, id in enumerate(ranked[:k], 1):
        if relevant.get(id, 0) > 0:
            found += 1
            total += found / rank
    return total / found if found else 0.0


def span_recall(found: Sequence[tuple[str, Span]], wanted: Sequence[tuple[str, Span]]) -> float:
    """Share of the wanted characters that any chunk found has; both are (document, characters)."""
    need = _characters(wanted)
    return len(need & _characters(found)) / len(need) if need else 0.0


def span_precision(found: Sequence[tuple[str, Span]], wanted: Sequence[tuple[str, Span]]) -> float:
    """Share of the characters found that were wanted."""
    have = _characters(found)
    return len(have & _characters(wanted)) / len(have) if have else 0.0


def _characters(spans: Sequence[tuple[str, Span]]) -> set[tuple[str, int]]:
    return {(name, at) for name, span in spans for at in range(span.start, span.end)}
