"""Fewer repetitions among what was found: near-duplicate removal and maximal marginal relevance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rag.types import Hit, Vectors

__all__ = ["mmr", "without_duplicates"]


def without_duplicates(hits: Sequence[Hit], threshold: float, limit: int) -> list[Hit]:
    """The first `limit` hits, leaving out each whose text repeats a better one's, or whose vector
    has a cosine of `threshold` or more with it. Hits without a vector are compared by text."""
    kept: list[Hit] = []
    texts: set[str] = set()
    rows: list[Vectors] = []
    for hit in hits:
        if len(kept) == limit:
            break
        text = " ".join(hit.chunk.text.split()).casefold()
        if text in texts:
            continue
        if hit.vector is not None:
            row = _unit(hit.vector)
            if any(float(row @ other) >= threshold for other in rows):
                continue
            rows.append(row)
        texts.add(text)
        kept.append(hit)
    return kept


def mmr(hits: Sequence[Hit], limit: int, weight: float) -> list[Hit]:
    """Pick `limit` hits, each the best by `weight` · relevance - (1 - `weight`) · its greatest
    cosine with those already picked; relevance is the score brought to [0, 1]. Every hit needs its
    vector."""
    if not hits:
        return []
    scores = np.array([hit.score for hit in hits])
    spread = float(np.ptp(scores))
    relevance = (scores - scores.min()) / spread if spread else np.ones(len(hits))
    vectors = np.stack([_unit(_vector(hit)) for hit in hits])
    nearest = np.zeros(len(hits))
    picked: list[int] = []
    while len(picked) < min(limit, len(hits)):
        gain = weight * relevance - (1 - weight) * nearest
        gain[picked] = -np.inf
        best = int(np.argmax(gain))
        picked.append(best)
        nearest = np.maximum(nearest, vectors @ vectors[best])
    return [hits[at] for at in picked]


def _vector(hit: Hit) -> Vectors:
    if hit.vector is None:
        raise ValueError("maximal marginal relevance needs every hit's vector")
    return hit.vector


def _unit(vector: Vectors) -> Vectors:
    norm = float(np.linalg.norm(vector))
    return vector / norm if norm else vector
