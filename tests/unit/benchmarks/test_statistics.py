from __future__ import annotations

import math
import random

import pytest

from benchmarks.statistics import (
    auc,
    auc_by_chance,
    bootstrap,
    difference_of_medians,
    percentile,
    ratio,
    summarize,
)


def test_percentiles_interpolate_between_neighbours() -> None:
    values = [4.0, 1.0, 3.0, 2.0]
    assert percentile(values, 0.0) == 1.0
    assert percentile(values, 0.5) == 2.5
    assert percentile(values, 0.9) == pytest.approx(3.7)
    assert percentile(values, 1.0) == 4.0
    assert math.isnan(percentile([], 0.5))


def test_summary_names_the_usual_figures() -> None:
    summary = summarize([1.0, 2.0, 6.0])
    assert (summary["mean"], summary["median"], summary["max"]) == (3.0, 2.0, 6.0)
    assert summary["p90"] == pytest.approx(5.2)
    assert summarize([]) == {}


def test_ratio_of_steady_rounds_is_certain() -> None:
    interval = ratio([90.0, 90.0, 90.0], [100.0, 100.0, 100.0])
    assert (interval.low, interval.value, interval.high) == (0.9, 0.9, 0.9)


def test_interval_encloses_the_estimate_and_is_reproducible() -> None:
    left, right = [80.0, 95.0, 90.0, 85.0], [100.0, 104.0, 97.0, 99.0]
    interval = ratio(left, right)
    assert interval.low < interval.value < interval.high
    assert interval.value == pytest.approx(0.875)
    assert interval == ratio(left, right)


def test_wider_confidence_gives_a_wider_interval() -> None:
    left, right = [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 2.0, 3.0]
    narrow = bootstrap(left, right, lambda a, b: sum(a) / sum(b), confidence=0.5)
    wide = bootstrap(left, right, lambda a, b: sum(a) / sum(b), confidence=0.99)
    assert wide.low < narrow.low
    assert wide.high > narrow.high


def test_difference_of_medians_ignores_outliers() -> None:
    assert difference_of_medians([5.0, 6.0, 7.0, 900.0], [1.0, 2.0, 3.0]).value == 4.5


def test_without_samples_there_is_no_estimate() -> None:
    assert math.isnan(ratio([], [1.0]).value)
    assert math.isnan(ratio([1.0], [0.0]).value)


def test_auc_tells_apart_what_differs_and_only_that() -> None:
    assert auc([1.0, 2.0], [3.0, 4.0]) == 1.0
    assert auc([3.0, 4.0], [1.0, 2.0]) == 0.0
    assert auc([1.0, 2.0], [1.0, 2.0]) == 0.5
    assert auc([1.0, 3.0], [2.0]) == 0.5
    assert auc([2.0, 2.0, 1.0], [2.0, 5.0]) == pytest.approx(5 / 6)
    assert math.isnan(auc([], [1.0]))


def test_what_chance_allows_shrinks_with_the_pairs_and_covers_equal_samples() -> None:
    rng = random.Random(1)
    left, right = ([rng.random() for _ in range(200)] for _ in range(2))
    assert 0.5 < auc_by_chance(left, right) < auc_by_chance(left[:10], right[:10]) < 1.0
    assert auc(left, right) < auc_by_chance(left, right)
    shifted = [value - 0.5 for value in left]
    assert auc(shifted, right) > auc_by_chance(shifted, right)
