"""Percentiles and how sure a ratio is, in plain Python."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

__all__ = ["Interval", "bootstrap", "difference_of_medians", "percentile", "ratio", "summarize"]

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
