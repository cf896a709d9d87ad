"""The gate: what is not known never passes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import ConfigError, parse
from finetune.config import EvaluationConfig, GateRule
from finetune.evaluation.gate import judge
from finetune.evaluation.result import GateResult, Metric
from finetune.evaluation.statistics import Estimate


def metric(
    name: str,
    candidate: Estimate,
    examples: int = 100,
    **differences: Estimate,
) -> dict[str, Metric]:
    higher = GateRule(metric=name, against="base").higher_is_better
    found = Metric(name, examples, higher, {"candidate": candidate}, dict(differences))  # type: ignore[arg-type]
    return {name: found}


def judged(rule: GateRule, metrics: dict[str, Metric]) -> bool:
    (found,) = judge([rule], metrics).rules
    assert rule.metric in found.reason
    return found.passed


def test_a_bound_is_a_bound() -> None:
    at_least = GateRule(metric="exact_match", at_least=0.8)
    assert judged(at_least, metric("exact_match", Estimate(0.8)))
    assert not judged(at_least, metric("exact_match", Estimate(0.79)))
    at_most = GateRule(metric="empty_rate", at_most=0.1)
    assert judged(at_most, metric("empty_rate", Estimate(0.1)))
    assert not judged(at_most, metric("empty_rate", Estimate(0.11)))


def test_no_worse_than_the_baseline_by_more_than_the_tolerance() -> None:
    rule = GateRule(metric="loss", against="base", tolerance=0.1)
    assert judged(rule, metric("loss", Estimate(3), base=Estimate(0.1)))
    assert not judged(rule, metric("loss", Estimate(3), base=Estimate(0.11)))
    rule = GateRule(metric="token_f1", against="base", tolerance=0.1)
    assert judged(rule, metric("token_f1", Estimate(0.5), base=Estimate(-0.1)))
    assert not judged(rule, metric("token_f1", Estimate(0.5), base=Estimate(-0.11)))
    better = GateRule(metric="loss", against="base", tolerance=-0.5)
    assert not judged(better, metric("loss", Estimate(1), base=Estimate(-0.4)))


def test_the_live_version_is_what_answers_now() -> None:
    rule = GateRule(metric="loss", against="live")
    both = metric("loss", Estimate(1), base=Estimate(-2), live=Estimate(0.5))
    assert not judged(rule, both)
    assert judged(rule, metric("loss", Estimate(1), base=Estimate(-2)))
    (found,) = judge([rule], metric("loss", Estimate(1), base=Estimate(-2))).rules
    assert "nothing is live" in found.reason


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_fails(value: float) -> None:
    absolute = GateRule(metric="loss", at_most=1e300)
    assert not judged(absolute, metric("loss", Estimate(value)))
    relative = GateRule(metric="loss", against="base", tolerance=1e300)
    assert not judged(relative, metric("loss", Estimate(1), base=Estimate(value)))


def test_what_is_missing_fails() -> None:
    assert not judged(GateRule(metric="token_f1", at_least=0.0), {})
    rule = GateRule(metric="loss", against="base", tolerance=9)
    assert not judged(rule, metric("loss", Estimate(1)))


def test_too_few_examples_fail() -> None:
    rule = GateRule(metric="exact_match", at_least=0.1, min_examples=20)
    assert not judged(rule, metric("exact_match", Estimate(1.0), examples=19))
    assert judged(rule, metric("exact_match", Estimate(1.0), examples=20))


def test_what_is_inconclusive_fails_where_certainty_is_asked_for() -> None:
    rule = GateRule(metric="loss", against="base", confident=True)
    assert judged(rule, metric("loss", Estimate(1), base=Estimate(-0.2, -0.3, -0.1)))
    assert not judged(rule, metric("loss", Estimate(1), base=Estimate(-0.2, -0.5, 0.1)))
    assert not judged(rule, metric("loss", Estimate(1), base=Estimate(-0.2)))
    lax = GateRule(metric="loss", against="base")
    assert judged(lax, metric("loss", Estimate(1), base=Estimate(-0.2, -0.5, 0.1)))


def test_reasons_are_those_of_the_rules_that_failed() -> None:
    rules = [GateRule(metric="loss", at_most=1), GateRule(metric="exact_match", at_least=0.5)]
    found = judge(rules, metric("loss", Estimate(0.5)))
    assert not found.passed
    assert len(found.rules) == 2
    assert found.reasons == ("exact_match must be at least 0.5: was not measured",)
    assert GateResult(()).passed


@given(
    st.floats(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.one_of(st.none(), st.floats()),
)
def test_only_finite_values_within_the_bound_pass(
    value: float, bound: float, confident: bool, high: float | None
) -> None:
    rule = GateRule(metric="loss", at_most=bound, confident=confident)
    if judged(rule, metric("loss", Estimate(value, value, high))):
        assert math.isfinite(value)
        assert value <= bound
        assert not confident or (high is not None and high <= bound)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"metric": "los", "at_most": 1}, "there is no metric 'los'"),
        ({"metric": "loss"}, "needs `against`, or the bound `at_most`"),
        ({"metric": "loss", "at_least": 1}, "needs `against`, or the bound `at_most`"),
        ({"metric": "exact_match", "at_most": 1}, "or the bound `at_least`"),
        ({"metric": "loss", "against": "live", "at_most": 1}, "against live takes a tolerance"),
        ({"metric": "loss", "at_most": math.nan}, "finite"),
        ({"metric": "robustness_drop.spelling", "at_most": 1}, "robustness lacks 'spelling'"),
        ({"metric": "slice_gap.language.loss", "at_most": 1}, "FIELD that slices names"),
    ],
)
def test_a_rule_that_could_never_be_met_is_refused(rule: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(EvaluationConfig, {"gate": [rule]})
