"""Results by the values of a declared field, and the gap between the best and the worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.config import EvaluationConfig
from finetune.evaluation.metrics import BASELINES, f1_of, loss_of
from finetune.evaluation.model import Version
from finetune.evaluation.result import Metric, Slice
from finetune.evaluation.statistics import Bootstrap, Sample
from finetune.evaluation.task import Observed, Task

MISSING = "(missing)"
OTHER = "(other)"
_MOST = 20
_LENGTH = 60


def slice_value(extra: Mapping[str, Any], field: str) -> str:
    """The value at `field`, a dotted path, as text of at most 60 characters."""
    found: Any = extra.get(field)
    if found is None:
        found = extra
        for name in field.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
    if isinstance(found, bool):
        return str(found).lower()
    if not isinstance(found, str | int | float):
        return MISSING
    # Fields that are not trained on are not checked either: half a surrogate pair can stand there.
    text = str(found).encode("utf-8", "replace").decode()
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH - 1]}…"


def members(task: Task, field: str) -> dict[str, list[int]]:
    """Indexes of examples by value, the commonest first; beyond 20 values, `(other)`."""
    found: dict[str, list[int]] = {}
    for index, example in enumerate(task.examples):
        found.setdefault(slice_value(example.extra, field), []).append(index)
    ordered = sorted(found.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    kept = dict(ordered[:_MOST])
    if rest := [index for _, indexes in ordered[_MOST:] for index in indexes]:
        kept[OTHER] = sorted([*kept.get(OTHER, []), *rest])
    return kept


def slices(
    task: Task,
    observed: Mapping[Version, Observed],
    config: EvaluationConfig,
    bootstrap: Bootstrap,
) -> tuple[Slice, ...]:
    """Every slice of every declared field."""
    found = []
    losses = {version: loss_of(seen) for version, seen in observed.items()}
    matches = {version: f1_of(task, seen) for version, seen in observed.items()}
    for field in config.slices:
        for value, indexes in members(task, field).items():
            asked = _asked(task, indexes)
            picked = {version: _pick(each, asked) for version, each in matches.items() if asked}
            loss = {v: bootstrap.estimate(_pick(each, indexes)) for v, each in losses.items()}
            token_f1 = {version: bootstrap.estimate(each) for version, each in picked.items()}
            found.append(Slice(field, value, len(indexes), len(asked), loss, token_f1))
    return tuple(found)


def gaps(
    task: Task,
    observed: Mapping[Version, Observed],
    config: EvaluationConfig,
    bootstrap: Bootstrap,
) -> dict[str, Metric]:
    """`slice_gap.FIELD.token_f1` and `.loss`, where two slices have `min_slice` examples."""
    found: dict[str, Metric] = {}
    for field in config.slices:
        groups = list(members(task, field).values())
        losses = [each for each in groups if len(each) >= config.min_slice]
        answered = [_asked(task, each) for each in groups]
        answered = [each for each in answered if len(each) >= config.min_slice]
        by_name = {
            "token_f1": (answered, {v: f1_of(task, seen) for v, seen in observed.items()}),
            "loss": (losses, {v: loss_of(seen) for v, seen in observed.items()}),
        }
        for of, (chosen, samples) in by_name.items():
            if len(chosen) > 1:
                name = f"slice_gap.{field}.{of}"
                found[name] = _gap(name, chosen, samples, bootstrap)
    return found


def _gap(
    name: str,
    groups: Sequence[Sequence[int]],
    samples: Mapping[Version, Sample],
    bootstrap: Bootstrap,
) -> Metric:
    picked = {version: [_pick(of, each) for each in groups] for version, of in samples.items()}
    return Metric(
        name=name,
        examples=sum(len(each) for each in groups),
        higher_is_better=False,
        versions={version: bootstrap.gap(each) for version, each in picked.items()},
        differences={
            baseline: bootstrap.gap(picked["candidate"], picked[baseline])
            for baseline in BASELINES
            if baseline in picked
        },
    )


def _asked(task: Task, indexes: Sequence[int]) -> list[int]:
    """Indexes in `Task.asked` of those examples that are answered."""
    wanted = set(indexes)
    return [at for at, index in enumerate(task.asked) if index in wanted]


def _pick(sample: Sample, indexes: Sequence[int]) -> Sample:
    weights = [sample.weights[index] for index in indexes] if sample.weights else ()
    return Sample([sample.parts[index] for index in indexes], weights)
