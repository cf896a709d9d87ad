"""Rows of the report's tables, the same for Markdown and HTML."""

from __future__ import annotations

from collections.abc import Sequence

from finetune.evaluation.result import Evaluation, Metric, RuleResult, Slice
from finetune.evaluation.statistics import Estimate


def written(found: Estimate | None) -> str:
    """`0.5 (0.4 to 0.6)`."""
    if found is None:
        return "–"
    if not found.finite:
        return str(found.value)
    if found.low is None or found.high is None:
        return f"{found.value:.4g}"
    return f"{found.value:.4g} ({found.low:.4g} to {found.high:.4g})"


def metric_head(found: Evaluation) -> list[str]:
    """Heads of the metrics' columns."""
    baselines = found.versions[:-1]
    return ["metric", "n", *found.versions, *(f"candidate less {each}" for each in baselines)]


def metric_row(metric: Metric, found: Evaluation) -> list[str]:
    """One metric."""
    better = "↑" if metric.higher_is_better else "↓"
    versions = [written(metric.versions.get(version)) for version in found.versions]
    differences = [written(each) for each in metric.differences.values()]
    return [f"{metric.name} {better}", f"{metric.examples:,}", *versions, *differences]


def slice_head(found: Evaluation) -> list[str]:
    """Heads of the slices' columns."""
    kinds = [f"{of}, {version}" for of in ("loss", "token F1") for version in found.versions]
    return ["field", "value", "n", "answered", *kinds]


def slice_row(one: Slice, found: Evaluation) -> list[str]:
    """One slice."""
    kinds = [written(of.get(v)) for of in (one.loss, one.token_f1) for v in found.versions]
    return [one.field, one.value, f"{one.examples:,}", f"{one.answered:,}", *kinds]


GATE_HEAD = ["", "rule", "n"]


def gate_row(one: RuleResult) -> list[str]:
    """One rule of the gate."""
    return ["passed" if one.passed else "FAILED", one.reason, f"{one.examples:,}"]


def facts(found: Evaluation) -> list[tuple[str, str]]:
    """What was measured."""
    rows = "held-out rows" if found.config.on == "held_out" else "rows that were trained on"
    left_out = f"; {found.left_out:,} left out (too long or unrenderable)" if found.left_out else ""
    described = [
        ("candidate", found.candidate),
        ("live version", found.live or "none"),
        ("base model", found.base),
        ("measured on", f"{found.examples:,} of {found.available:,} {rows}{left_out}"),
        ("intervals", f"{found.config.confidence:.0%} confidence"),
    ]
    return [(name, text) for name, text in described if text]


def verdict(found: Evaluation) -> str:
    """The gate in a sentence."""
    if not found.gate.rules:
        return "The gate asks for nothing: passed."
    failed = len(found.gate.reasons)
    total = len(found.gate.rules)
    if failed:
        return f"Gate failed: {failed} of {total} rules. The adapter may not go live."
    return f"Gate passed: all {total} rules."


SAMPLES = "Answers side by side"
FORGOTTEN = "Known to the base model, not to the candidate"


def answer_label(version: str, over_long: Sequence[str]) -> str:
    """Heads an answer."""
    return f"{version} (cut off)" if version in over_long else version
