"""The gate: whether a trained adapter may go live. Whatever is not known fails."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from finetune.config import GateRule
from finetune.evaluation.result import GateResult, Metric, RuleResult
from finetune.evaluation.statistics import Estimate


def judge(rules: Sequence[GateRule], metrics: Mapping[str, Metric]) -> GateResult:
    """Every rule with what was found for it."""
    return GateResult(tuple(_judge(rule, metrics.get(rule.metric)) for rule in rules))


def _judge(rule: GateRule, metric: Metric | None) -> RuleResult:
    bound = _bound(rule)
    asked = _asked(rule, metric)
    if metric is None:
        return RuleResult(rule, None, bound, 0, False, f"{asked}: was not measured")

    def result(passed: bool, reason: str) -> RuleResult:
        value = None if found is None else found.value
        return RuleResult(rule, value, bound, metric.examples, passed, f"{asked}: {reason}")

    found = _found(rule, metric)
    if found is None:
        return result(False, "was not measured")
    if not math.isfinite(found.value):
        return result(False, f"is {found.value}, no number")
    what = _written(found)
    if metric.examples < rule.min_examples:
        return result(
            False, f"{what} on {metric.examples} examples, fewer than {rule.min_examples}"
        )
    if not _fits(rule, found.value, bound):
        return result(False, what)
    if rule.confident and not _certain(rule, found, bound):
        return result(False, f"{what} is not certain")
    return result(True, what)


def _bound(rule: GateRule) -> float:
    if rule.against is not None:
        return -rule.tolerance if rule.higher_is_better else rule.tolerance
    given = rule.at_least if rule.higher_is_better else rule.at_most
    assert given is not None
    return given


def _found(rule: GateRule, metric: Metric) -> Estimate | None:
    """The value to compare. Where nothing is live, what answers now is the base model."""
    match rule.against:
        case None:
            return metric.versions.get("candidate")
        case "base":
            return metric.differences.get("base")
        case "live":
            return metric.differences.get("live", metric.differences.get("base"))


def _fits(rule: GateRule, value: float, bound: float) -> bool:
    return value >= bound if rule.higher_is_better else value <= bound


def _certain(rule: GateRule, found: Estimate, bound: float) -> bool:
    worst = found.low if rule.higher_is_better else found.high
    return worst is not None and math.isfinite(worst) and _fits(rule, worst, bound)


def _asked(rule: GateRule, metric: Metric | None) -> str:
    side = "at least" if rule.higher_is_better else "at most"
    less = ""
    if rule.against is not None:
        absent = rule.against == "live" and metric is not None and "live" not in metric.differences
        less = " less base's (nothing is live)" if absent else f" less {rule.against}'s"
    sure = " for certain" if rule.confident else ""
    return f"{rule.metric}{less} must be {side} {_bound(rule):.4g}{sure}"


def _written(found: Estimate) -> str:
    if found.low is None or found.high is None:
        return f"{found.value:.4g}"
    return f"{found.value:.4g} ({found.low:.4g} to {found.high:.4g})"
