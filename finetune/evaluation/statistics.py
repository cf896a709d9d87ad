"""Confidence intervals: of a metric, and of its difference between two versions.

Means, ratios of sums and perplexities: percentile bootstrap over examples (Efron & Tibshirani
1993, chapter 13), both versions resampled together, since they answer the same examples. Shares
of yes and no: Wilson 1927, and for differences of pairs Agresti & Min 2005, which unlike the
bootstrap stay honest where every example went the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]
_CELLS = 4_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured value; `low` and `high` are None where there is no telling (one example)."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def finite(self) -> bool:
        """Whether the value is a number to compare."""
        return math.isfinite(self.value)


@dataclass(frozen=True)
class Sample:
    """One metric of one version by example: the sum of `parts` over the sum of `weights`."""

    parts: Sequence[float]
    weights: Sequence[float] = ()
    """Empty: 1 each."""
    binary: bool = False
    """Each part is 0 or 1 and counts once."""
    exponential: bool = False
    """The metric is e to the power of the ratio."""

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def value(self) -> float:
        """Over all examples; NaN for none."""
        weight = math.fsum(self.weights) if self.weights else float(len(self.parts))
        total = math.fsum(self.parts) if all(map(math.isfinite, self.parts)) else math.nan
        return self._of(total / weight) if weight else math.nan

    def over(self, counts: NDArray[np.int64]) -> _Floats:
        """The metric of each resample; `counts` (resamples, examples): how often each counts."""
        parts = np.asarray(self.parts, dtype=np.float64)
        weights = np.asarray(self.weights or np.ones(len(parts)), dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            ratio: _Floats = (counts @ parts) / (counts @ weights)
            return np.exp(ratio) if self.exponential else ratio

    def _of(self, ratio: float) -> float:
        try:
            return math.exp(ratio) if self.exponential else ratio
        except OverflowError:
            return math.inf


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made; the same seed gives the same ones."""

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    @property
    def _z(self) -> float:
        return NormalDist().inv_cdf(0.5 + self.confidence / 2)

    def estimate(self, sample: Sample) -> Estimate:
        """The metric with its interval."""
        if sample.binary and len(sample):
            return self._wilson(sample)
        return self._interval(
            sample.value, len(sample), (sample.over(c) for c in self._counts(len(sample)))
        )

    def difference(self, ours: Sample, theirs: Sample) -> Estimate:
        """Ours less theirs, of the same examples in the same order."""
        assert len(ours) == len(theirs)
        value = ours.value - theirs.value
        if ours.binary and len(ours):
            return self._pairs(ours, theirs, value)
        draws = (ours.over(c) - theirs.over(c) for c in self._counts(len(ours)))
        return self._interval(value, len(ours), draws)

    def gap(self, groups: Sequence[Sample], theirs: Sequence[Sample] | None = None) -> Estimate:
        """The largest less the smallest, each group resampled for itself; given the same groups
        of another version, less its gap.

        Of groups that do not differ at all a gap is above 0 by chance, the more the smaller they
        are.
        """
        if len(groups) < 2:
            return Estimate(math.nan)
        value, draws = _spread([each.value for each in groups]), self._gaps(groups)
        if theirs is not None:
            value -= _spread([each.value for each in theirs])
            draws = draws - self._gaps(theirs)
        return self._interval(value, min(len(each) for each in groups), iter([draws]))

    def _gaps(self, groups: Sequence[Sample]) -> _Floats:
        by_group = [
            np.concatenate([group.over(counts) for counts in self._counts(len(group), index)])
            for index, group in enumerate(groups)
        ]
        found: _Floats = np.ptp(np.stack(by_group), axis=0)
        return found

    def _counts(self, examples: int, stream: int = 0) -> Iterator[NDArray[np.int64]]:
        """Resamples as counts, in pieces of bounded size."""
        if not examples:
            return
        random = np.random.default_rng([self.seed, stream])
        at_once = max(1, _CELLS // examples)
        for start in range(0, self.resamples, at_once):
            size = min(at_once, self.resamples - start)
            yield random.multinomial(examples, np.full(examples, 1 / examples), size=size)

    def _interval(self, value: float, examples: int, draws: Iterator[_Floats]) -> Estimate:
        if examples < 2 or not math.isfinite(value):
            return Estimate(value)
        found = np.concatenate(list(draws))
        if not np.isfinite(found).all():
            return Estimate(value)
        tail = (1 - self.confidence) / 2
        low, high = (float(each) for each in np.quantile(found, [tail, 1 - tail]))
        # A skewed bootstrap may leave its own value out by a rounding error.
        return Estimate(value, min(low, value), max(high, value))

    def _wilson(self, sample: Sample) -> Estimate:
        n, share, z = len(sample), sample.value, self._z
        if not math.isfinite(share):
            return Estimate(share)
        centre = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        return Estimate(
            share, min(max(0.0, centre - half), share), max(min(1.0, centre + half), share)
        )

    def _pairs(self, ours: Sample, theirs: Sample, value: float) -> Estimate:
        pairs = list(zip(ours.parts, theirs.parts, strict=True))
        n = len(pairs) + 2
        gained = sum(a > b for a, b in pairs) + 0.5
        lost = sum(a < b for a, b in pairs) + 0.5
        middle = (gained - lost) / n
        half = self._z * math.sqrt(gained + lost - (gained - lost) ** 2 / n) / n
        return Estimate(value, min(value, middle - half), max(value, middle + half))


def _spread(values: Sequence[float]) -> float:
    return max(values) - min(values) if all(map(math.isfinite, values)) else math.nan
