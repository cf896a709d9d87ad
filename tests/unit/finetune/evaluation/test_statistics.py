"""Intervals: values by hand, and what must hold of any sample."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.evaluation.statistics import Bootstrap, Sample

BOOTSTRAP = Bootstrap(resamples=200)
PARTS = st.lists(st.floats(-100, 100), min_size=2, max_size=40)


def test_loss_is_a_ratio_of_sums_and_perplexity_its_exponential() -> None:
    loss = Sample([2.0, 10.0], [1, 4])
    assert loss.value == pytest.approx(12 / 5)
    assert Sample([2.0, 10.0], [1, 4], exponential=True).value == pytest.approx(math.exp(2.4))
    assert Sample([1e6], [1], exponential=True).value == math.inf
    assert math.isnan(Sample([]).value)
    assert math.isnan(Sample([1.0, math.nan]).value)


def test_the_interval_of_a_mean_is_about_two_standard_errors() -> None:
    draw = random.Random(0)
    sample = Sample([draw.gauss(5, 2) for _ in range(400)])
    found = Bootstrap(resamples=2000).estimate(sample)
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * 2 / 20, rel=0.15)
    assert found.low < sample.value < found.high


def test_shares_have_wilsons_interval() -> None:
    # Wilson 1927 for 8 of 10 at 95 %.
    found = BOOTSTRAP.estimate(Sample([1.0] * 8 + [0.0] * 2, binary=True))
    assert found.low == pytest.approx(0.4902, abs=1e-4)
    assert found.high == pytest.approx(0.9433, abs=1e-4)
    # Three of three prove little.
    assert BOOTSTRAP.estimate(Sample([1.0] * 3, binary=True)).low == pytest.approx(0.4385, abs=1e-4)


def test_a_difference_of_shares_is_not_certain_because_no_pair_differs() -> None:
    same = Sample([1.0] * 10, binary=True)
    found = BOOTSTRAP.difference(same, same)
    # Agresti & Min 2005: half a pair in each of four cells, so ±z/12.
    assert found.value == 0
    assert found.high == pytest.approx(1.96 / 12, abs=1e-3)
    assert found.low == pytest.approx(-1.96 / 12, abs=1e-3)


def test_differences_are_paired() -> None:
    draw = random.Random(1)
    theirs = [draw.gauss(0, 100) for _ in range(100)]
    ours = [each - 1 for each in theirs]
    found = BOOTSTRAP.difference(Sample(ours), Sample(theirs))
    assert (found.value, found.low, found.high) == pytest.approx((-1, -1, -1))


def test_one_example_has_no_interval_and_none_no_value() -> None:
    one = BOOTSTRAP.estimate(Sample([0.5]))
    assert (one.value, one.low, one.high) == (0.5, None, None)
    assert not BOOTSTRAP.estimate(Sample([])).finite
    assert not BOOTSTRAP.estimate(Sample([], binary=True)).finite
    assert not BOOTSTRAP.estimate(Sample([math.inf, 1.0])).finite


def test_a_gap_is_between_the_extremes() -> None:
    groups = [Sample([0.1] * 9), Sample([0.5] * 9), Sample([0.9] * 9)]
    found = BOOTSTRAP.gap(groups)
    assert (found.value, found.low, found.high) == pytest.approx((0.8, 0.8, 0.8))
    less = BOOTSTRAP.gap(groups, [Sample([0.2] * 9), Sample([0.2] * 9), Sample([0.5] * 9)])
    assert less.value == pytest.approx(0.5)
    assert math.isnan(BOOTSTRAP.gap(groups[:1]).value)


@given(PARTS, st.integers(0, 3))
def test_intervals_hold_the_value_and_repeat(parts: list[float], seed: int) -> None:
    found = Bootstrap(100, seed=seed).estimate(Sample(parts))
    assert found == Bootstrap(100, seed=seed).estimate(Sample(parts))
    assert found.low is not None
    assert found.high is not None
    assert min(parts) - 1e-6 <= found.low <= found.value <= found.high <= max(parts) + 1e-6


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_intervals_of_shares_lie_between_0_and_1(flags: list[bool]) -> None:
    found = BOOTSTRAP.estimate(Sample([float(flag) for flag in flags], binary=True))
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high - found.low > 0


def test_many_resamples_of_many_examples_come_in_pieces() -> None:
    sample = Sample([float(i % 7) for i in range(50_000)])
    found = Bootstrap(resamples=300).estimate(sample)
    assert found.low is not None
    assert found.high is not None
    assert found.low < sample.value < found.high
