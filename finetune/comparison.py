"""Two runs side by side. Loads nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from finetune.events import read_events
from finetune.summary import Summary, load_summary

_FIGURES = (
    "steps", "trained_tokens", "tokens_per_second", "padding_waste", "packing_efficiency", "mfu",
    "peak_memory_bytes",
)  # fmt: skip
_ABSENT = "not set"


@dataclass(frozen=True)
class Figure:
    """One quantity of both runs."""

    name: str
    a: float | None
    b: float | None
    higher_is_better: bool | None = None
    """None where neither is."""

    @property
    def difference(self) -> float | None:
        """B less A."""
        return None if self.a is None or self.b is None else self.b - self.a


@dataclass(frozen=True)
class Comparison:
    """What differs."""

    a: Path
    b: Path
    settings: dict[str, tuple[Any, Any]]
    """By dotted path, where they differ."""
    figures: tuple[Figure, ...]
    """Ends of the curves, speed, memory."""
    metrics: tuple[Figure, ...]
    """Of the evaluations."""
    judged_by: Figure | None
    warnings: tuple[str, ...]

    @property
    def better(self) -> str | None:
        """`A` or `B`; None if they are equal, or one was not measured."""
        by = self.judged_by
        if by is None or not by.difference:
            return None
        return "B" if (by.difference > 0) == bool(by.higher_is_better) else "A"

    @property
    def verdict(self) -> str:
        """In one sentence."""
        by = self.judged_by
        if by is None or by.difference is None:
            return "which is better cannot be said: no metric was measured in both"
        if self.better is None:
            return f"neither is better by {by.name}"
        return f"{self.better} is better by {by.name}: {by.a:.4g} (A), {by.b:.4g} (B)"

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "a": str(self.a),
            "b": str(self.b),
            "settings": {name: {"a": a, "b": b} for name, (a, b) in self.settings.items()},
            "figures": [asdict(each) | {"difference": each.difference} for each in self.figures],
            "metrics": [asdict(each) | {"difference": each.difference} for each in self.metrics],
            "judged_by": None if self.judged_by is None else self.judged_by.name,
            "better": self.better,
            "warnings": list(self.warnings),
        }


def compare(a: Path, b: Path) -> Comparison:
    """Of two runs' folders."""
    first, second = _settings(a), _settings(b)
    names = dict.fromkeys([*first, *second])
    settings = {
        name: (first.get(name, _ABSENT), second.get(name, _ABSENT))
        for name in names
        if first.get(name, _ABSENT) != second.get(name, _ABSENT)
    }
    summaries = (
        load_summary(a) or Summary(status="running"),
        load_summary(b) or Summary(status="running"),
    )
    evaluations = _evaluation(a), _evaluation(b)
    curves = tuple(_pairs(_curve(a), _curve(b), {"train_loss", "valid_loss", "best_valid_loss"}))
    figures = (*curves, *(_figure(name, *summaries) for name in _FIGURES))
    metrics = tuple(_metrics(*evaluations))
    shown = tuple(each for each in figures if each.a is not None or each.b is not None)
    judge = _judge(evaluations[0], metrics) or _named("best_valid_loss", shown)
    return Comparison(a, b, settings, shown, metrics, judge, tuple(_warnings(*summaries)))


def _settings(folder: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        found = None
    return dict(_flat(found)) if isinstance(found, dict) else {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            plain = json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
            yield f"{prefix}{name}", plain


def _curve(folder: Path) -> dict[str, float | None]:
    """How the curves end."""
    points = [event.data for event in read_events(folder).events if event.type == "metrics"]
    train = [p["train_loss"] for p in points if p.get("train_loss") is not None]
    valid = [p["full_valid_loss"] for p in points if p.get("full_valid_loss") is not None]
    return {
        "train_loss": train[-1] if train else None,
        "valid_loss": valid[-1] if valid else None,
        "best_valid_loss": min(valid, default=None),
    }


def _pairs(
    a: Mapping[str, float | None], b: Mapping[str, float | None], lower: set[str]
) -> Iterator[Figure]:
    for name in a:
        yield Figure(name, a[name], b[name], False if name in lower else None)


def _figure(name: str, a: Summary, b: Summary) -> Figure:
    return Figure(name, getattr(a, name), getattr(b, name))


def _evaluation(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _metrics(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Figure]:
    first, second = a.get("metrics") or {}, b.get("metrics") or {}
    for name in dict.fromkeys([*first, *second]):
        known = first.get(name) or second[name]
        higher = known.get("higher_is_better")
        yield Figure(name, _value(first.get(name)), _value(second.get(name)), higher)


def _value(metric: Any) -> float | None:
    """Of the trained adapter."""
    if not isinstance(metric, dict):
        return None
    found = (metric.get("versions", {}).get("candidate") or {}).get("value")
    return float(found) if isinstance(found, int | float) else None


def _judge(evaluation: Mapping[str, Any], metrics: tuple[Figure, ...]) -> Figure | None:
    """The first metric of the gate that was measured in both."""
    rules = (evaluation.get("gate") or {}).get("rules") or ()
    for rule in rules:
        found = _named(str((rule.get("rule") or {}).get("metric")), metrics)
        if found is not None and found.difference is not None:
            return found
    return None


def _named(name: str, figures: tuple[Figure, ...]) -> Figure | None:
    return next((each for each in figures if each.name == name), None)


def _warnings(a: Summary, b: Summary) -> Iterator[str]:
    if a.data_hash != b.data_hash:
        yield "the data differs, and so may the held-out part: losses are not comparable"
    if a.base_revision != b.base_revision:
        yield "the base models differ"
    for name, summary in (("A", a), ("B", b)):
        if summary.status != "succeeded":
            yield f"{name} has not succeeded: {summary.status}"
