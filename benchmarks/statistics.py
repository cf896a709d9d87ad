"""Percentiles and how sure a ratio is, in plain Python."""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

__all__ = [
    "Interval",
    "auc",
    "auc_by_chance",
    "bootstrap",
    "difference_of_medians",
    "percentile",
    "ratio",
    "summarize",
]

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval."""

    value: float
    low: float
    high: float


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of `values` lie, interpolated as numpy does."""
    if not values:
        return math.nan
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def summarize(values: Sequence[float]) -> dict[str, float]:
    """mean, median, p90, p99 and max; empty when there is nothing to summarize."""
    if not values:
        return {}
    return {
        "mean": fmean(values),
        "median": median(values),
        "p90": percentile(values, 0.9),
        "p99": percentile(values, 0.99),
        "max": max(values),
    }


def bootstrap(
    left: Sequence[float],
    right: Sequence[float],
    statistic: Callable[[Sequence[float], Sequence[float]], float],
    confidence: float = 0.95,
) -> Interval:
    """`statistic(left, right)` with its percentile bootstrap interval (Efron 1979).

    The two samples are drawn independently, always with the same seed. From the three to
    five rounds of a benchmark the interval is a hint: it cannot leave the range seen.
    """
    if not left or not right:
        return Interval(math.nan, math.nan, math.nan)
    rng = random.Random(0)
    drawn = [
        statistic(rng.choices(left, k=len(left)), rng.choices(right, k=len(right)))
        for _ in range(RESAMPLES)
    ]
    margin = (1 - confidence) / 2
    return Interval(
        statistic(left, right), percentile(drawn, margin), percentile(drawn, 1 - margin)
    )


def ratio(left: Sequence[float], right: Sequence[float]) -> Interval:
    """Mean of `left` over mean of `right`, one value a round."""
    return bootstrap(left, right, lambda a, b: fmean(a) / fmean(b) if any(b) else math.nan)


def difference_of_medians(left: Sequence[float], right: Sequence[float]) -> Interval:
    """Median of `left` less median of `right`, one value a request."""
    return bootstrap(left, right, lambda a, b: median(a) - median(b))


def auc(lower: Sequence[float], higher: Sequence[float]) -> float:
    """How well a value tells of which sample it is: the area under the ROC curve.

    The share of pairs in which the one of `lower` is the smaller, ties counting half
    (Mann and Whitney 1947): 0.5 tells nothing, 1 tells all.
    """
    if not lower or not higher:
        return math.nan
    ordered = sorted(higher)
    above = sum(
        2 * len(ordered) - bisect_left(ordered, v) - bisect_right(ordered, v) for v in lower
    )
    return above / (2 * len(lower) * len(higher))


def auc_by_chance(
    lower: Sequence[float], higher: Sequence[float], confidence: float = 0.999
) -> float:
    """What `auc` stays below, in that share of cases, where the samples do not differ.

    By permutation: the two values of each pair are swapped at random, always with the same
    seed, so that whatever drifts over the pairs is in both.
    """
    rng = random.Random(0)
    drawn = []
    for _ in range(RESAMPLES):
        pairs = [
            (b, a) if rng.random() < 0.5 else (a, b) for a, b in zip(lower, higher, strict=True)
        ]
        drawn.append(auc([a for a, _ in pairs], [b for _, b in pairs]))
    return percentile(drawn, confidence)
