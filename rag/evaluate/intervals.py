"""How sure a mean over questions is, and whether one configuration is better than another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from configs import StrictModel

__all__ = ["Comparison", "Estimate", "compare", "estimate"]

_DRAWS = 10_000


class Estimate(StrictModel):
    """A mean with its 95% interval."""

    mean: float
    low: float
    high: float
    count: int


class Comparison(StrictModel):
    """The mean difference of two configurations over the same questions."""

    difference: Estimate
    p_value: float
    """Two-sided, by random sign flips: how often a difference as large comes of chance alone."""


def estimate(values: Sequence[float], seed: int = 0) -> Estimate:
    """The mean, with a percentile bootstrap interval (Efron, 1979; 10,000 draws)."""
    if not values:
        return Estimate(mean=float("nan"), low=float("nan"), high=float("nan"), count=0)
    data = np.asarray(values, np.float64)
    means = np.sort(_resampled_means(data, seed))
    low, high = np.quantile(means, (0.025, 0.975))
    return Estimate(mean=float(data.mean()), low=float(low), high=float(high), count=len(data))


def compare(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Comparison:
    """`first` minus `second`, question by question: the same questions in the same order."""
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} questions cannot be paired")
    differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    observed = abs(differences.mean()) if len(differences) else 0.0
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(10):
        signs = rng.integers(0, 2, (_DRAWS // 10, len(differences)), dtype=np.int8) * 2 - 1
        hits += int((np.abs((signs * differences).mean(axis=1)) >= observed - 1e-12).sum())
    return Comparison(
        difference=estimate(differences.tolist(), seed), p_value=(hits + 1) / (_DRAWS + 1)
    )


def _resampled_means(
    data: np.ndarray[tuple[int], np.dtype[np.float64]], seed: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    rng = np.random.default_rng(seed)
    parts = [
        data[rng.integers(0, len(data), (_DRAWS // 10, len(data)))].mean(axis=1) for _ in range(10)
    ]
    return np.concatenate(parts)
