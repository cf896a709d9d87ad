"""Which plots a report has. Their names are those of files in `plots/`."""

from __future__ import annotations

from finetune.evaluation.model import Version
from finetune.evaluation.result import Evaluation
from finetune.evaluation.svg import Line, Row, curves, intervals

COLOURS: dict[Version, int] = {"base": 0, "live": 1, "candidate": 2}
_SHARES = (
    "exact_match", "token_f1", "rouge_l", "preference_accuracy", "forgetting_accuracy",
    "refusal_rate", "empty_rate", "over_length_rate",
)  # fmt: skip


def plots(found: Evaluation) -> dict[str, str]:
    """SVG by name, of what there is to show."""
    drawn = {}
    series = [(str(version), COLOURS[version]) for version in found.versions]
    if found.curve:
        lines = [
            Line("training", [(p.step, p.train) for p in found.curve if p.train is not None], 0),
            Line(
                "validation",
                [(p.step, p.validation) for p in found.curve if p.validation is not None],
                2,
            ),
        ]
        drawn["training"] = curves("Loss while training, nats a token", "step", lines)
    for name, title, of in (
        ("loss", f"{_on(found)} loss, nats a token: less is better", ("loss",)),
        ("shares", "Answers", _SHARES),
        ("robustness", "Fall of token F1 when prompts are perturbed", _robustness(found)),
    ):
        rows = [
            Row(key, [found.metrics[key].versions.get(version) for version in found.versions])
            for key in of
            if key in found.metrics
        ]
        if rows:
            drawn[name] = intervals(title, rows, series)
    for number, field in enumerate(dict.fromkeys(each.field for each in found.slices), start=1):
        of_field = [each for each in found.slices if each.field == field]
        by_f1 = any(each.token_f1 for each in of_field)
        rows = [
            Row(
                each.value,
                [(each.token_f1 if by_f1 else each.loss).get(v) for v in found.versions],
            )
            for each in of_field
        ]
        what = "Token F1" if by_f1 else "Loss"
        drawn[f"slices-{number}"] = intervals(f"{what} by {field}", rows, series)
    return drawn


def _on(found: Evaluation) -> str:
    return "Held-out" if found.config.on == "held_out" else "Training rows'"


def _robustness(found: Evaluation) -> tuple[str, ...]:
    return tuple(name for name in found.metrics if name.startswith("robustness_drop."))
