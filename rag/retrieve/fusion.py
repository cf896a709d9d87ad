"""Ranked lists into one, each list with its weight.

RRF (Cormack et al., 2009) sees ranks only: Σ w / (k + rank). DBSF, distribution-based score fusion,
sees scores: each list is brought to [0, 1] by its mean ± 3 standard deviations, then Σ w · score.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rag.retrieve.config import FusionConfig
from rag.types import Hit

__all__ = ["Ranked", "dbsf", "fuse", "rrf"]


@dataclass(frozen=True, slots=True)
class Ranked:
    """One list, best first."""

    hits: Sequence[Hit]
    weight: float = 1.0


def fuse(lists: Sequence[Ranked], config: FusionConfig) -> list[Hit]:
    """Every hit of any list once, best first, with its fused score. Ties keep a fixed order."""
    match config.method:
        case "rrf":
            scores = rrf(lists, config.rrf_k)
        case "dbsf":
            scores = dbsf(lists)
    hits: dict[str, Hit] = {}
    for ranked in lists:
        for hit in ranked.hits:
            known = hits.get(hit.chunk.id)
            if known is None or known.vector is None:
                hits[hit.chunk.id] = hit
    order = sorted(scores, key=lambda id: (-scores[id], id))
    return [replace(hits[id], score=scores[id]) for id in order]


def rrf(lists: Sequence[Ranked], k: float) -> Mapping[str, float]:
    """Scores by chunk id; ranks count from 1."""
    scores: dict[str, float] = {}
    for ranked in lists:
        for rank, hit in enumerate(ranked.hits, 1):
            scores[hit.chunk.id] = scores.get(hit.chunk.id, 0.0) + ranked.weight / (k + rank)
    return scores


def dbsf(lists: Sequence[Ranked]) -> Mapping[str, float]:
    """Scores by chunk id. A list whose scores are all equal counts one half for each of them."""
    scores: dict[str, float] = {}
    for ranked in lists:
        values = [hit.score for hit in ranked.hits]
        if not values:
            continue
        mean, deviation = statistics.fmean(values), statistics.pstdev(values)
        for hit, value in zip(ranked.hits, values, strict=True):
            norm = 0.5 if deviation == 0 else (value - mean + 3 * deviation) / (6 * deviation)
            norm = min(1.0, max(0.0, norm))
            scores[hit.chunk.id] = scores.get(hit.chunk.id, 0.0) + ranked.weight * norm
    return scores
