"""What an evaluation found: plain values, and the JSON that they become."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from finetune.config import EvaluationConfig, GateRule
from finetune.evaluation.model import Version
from finetune.evaluation.statistics import Estimate

Baseline = Literal["base", "live"]
FORMAT = 1


@dataclass(frozen=True)
class Metric:
    """One metric of every version, and how the candidate differs from the others."""

    name: str
    examples: int
    higher_is_better: bool
    versions: dict[Version, Estimate]
    differences: dict[Baseline, Estimate]
    """Candidate less baseline, on the same examples."""


@dataclass(frozen=True)
class Slice:
    """The examples that have one value in one field."""

    field: str
    value: str
    examples: int
    answered: int
    """Of those, the ones that answers were generated for."""
    loss: dict[Version, Estimate]
    token_f1: dict[Version, Estimate]


@dataclass(frozen=True)
class RuleResult:
    """What became of one rule of the gate."""

    rule: GateRule
    value: float | None
    """The metric; with `against`, the candidate's less the baseline's. None: not measured."""
    bound: float
    """What it had to be: at least, of metrics of which more is better; else at most."""
    examples: int
    passed: bool
    reason: str
    """One line: what was asked for and what was found."""


@dataclass(frozen=True)
class GateResult:
    """Whether the adapter may go live."""

    rules: tuple[RuleResult, ...]

    @property
    def passed(self) -> bool:
        """Every rule passed. Without rules nothing is asked for."""
        return all(each.passed for each in self.rules)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Of the rules that failed."""
        return tuple(each.reason for each in self.rules if not each.passed)


@dataclass(frozen=True)
class Shown:
    """One prompt with what every version answered."""

    name: str
    prompt: str
    reference: str
    answers: dict[Version, str]
    over_long: tuple[Version, ...] = ()
    """Versions whose answer had not ended."""


@dataclass(frozen=True)
class CurvePoint:
    """Losses at one step of training; None where not measured."""

    step: int
    train: float | None = None
    validation: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """Everything that `evaluation.json` holds."""

    candidate: str
    live: str | None
    base: str
    config: EvaluationConfig
    examples: int
    """Rows that were measured."""
    available: int
    """Rows that could have been."""
    left_out: int
    """Of those chosen, too long or refused by the chat template."""
    metrics: Mapping[str, Metric]
    slices: tuple[Slice, ...]
    gate: GateResult
    shown: tuple[Shown, ...] = ()
    forgotten: tuple[Shown, ...] = ()
    """Questions that the base model knows and the candidate does not."""
    curve: tuple[CurvePoint, ...] = ()
    warnings: tuple[str, ...] = ()
    """What to know before believing the numbers."""
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def versions(self) -> tuple[Version, ...]:
        """Those that were measured."""
        return ("base", "live", "candidate") if self.live else ("base", "candidate")

    def as_json(self) -> dict[str, Any]:
        """Plain values; what is not finite becomes null."""
        plain = asdict(self) | {
            "format": FORMAT,
            "config": self.config.model_dump(mode="json"),
            "gate": {
                "passed": self.gate.passed,
                "reasons": list(self.gate.reasons),
                "rules": [
                    asdict(each) | {"rule": each.rule.model_dump(mode="json")}
                    for each in self.gate.rules
                ],
            },
        }
        found: dict[str, Any] = _finite(plain)
        return found


def _finite(value: Any) -> Any:
    match value:
        case Mapping():
            return {str(key): _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case float() if not math.isfinite(value):
            return None
        case _:
            return value
