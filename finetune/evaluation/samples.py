"""Which answers people get to see: side by side, and what was forgotten."""

from __future__ import annotations

from collections.abc import Mapping

from finetune.evaluation.model import Version
from finetune.evaluation.result import Shown
from finetune.evaluation.task import Observed, Task

_LONGEST_TEXT = 4000
_MOST_FORGOTTEN = 20


def shown_answers(task: Task, observed: Mapping[Version, Observed], most: int) -> tuple[Shown, ...]:
    """The first `most` prompts with every version's answer."""
    found = []
    for at, index in enumerate(task.asked[:most]):
        example = task.examples[index]
        prompt = example.prompt.question if example.prompt is not None else ""
        found.append(
            Shown(
                name=example.name,
                prompt=_cut(prompt),
                reference=_cut(example.reference),
                answers={version: seen.answers[at].text for version, seen in observed.items()},
                over_long=tuple(
                    version
                    for version, seen in observed.items()
                    if seen.answers[at].finish == "length"
                ),
            )
        )
    return tuple(found)


def forgotten(task: Task, observed: Mapping[Version, Observed]) -> tuple[Shown, ...]:
    """Up to 20 questions that the base model knows and the candidate does not."""
    found = []
    for at, question in enumerate(task.questions):
        said: dict[Version, str] = {v: seen.recalled[at].text for v, seen in observed.items()}
        if question.is_right(said["base"]) and not question.is_right(said["candidate"]):
            wanted = ", ".join(question.answers)
            found.append(Shown(question.topic or "question", question.question, wanted, said))
    return tuple(found[:_MOST_FORGOTTEN])


def _cut(text: str) -> str:
    rest = len(text) - _LONGEST_TEXT
    return f"{text[:_LONGEST_TEXT]}… ({rest:,} more characters)" if rest > 0 else text
