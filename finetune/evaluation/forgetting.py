"""What the adapter must not unlearn: questions with short answers that are known.

A file has one JSON object a line: `{"question": "…", "answers": ["Paris"], "topic": "…"}`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from configs import StrictModel
from finetune.data.read import read_jsonl
from finetune.errors import SourceUnreadable
from finetune.evaluation.text_metrics import contains

_BUILTIN = "forgetting.jsonl"
_LIMIT = 1 << 20
MAX_NEW_TOKENS = 32
"""Enough for the answer and a sentence around it."""


class Question(StrictModel):
    """One thing to know."""

    question: str = Field(min_length=1)
    """As a user asks it."""
    answers: tuple[str, ...] = Field(min_length=1)
    """An answer in which the words of any of these stand is right."""
    topic: str = ""
    """For reading only."""

    def is_right(self, answer: str) -> bool:
        """Whether one of the answers stands in it."""
        return any(contains(answer, wanted) for wanted in self.answers)


@dataclass(frozen=True)
class Recalled:
    """A question and what was answered, by version."""

    question: Question
    answers: dict[str, str]

    def right(self, version: str) -> bool:
        """Whether this version knew it."""
        return self.question.is_right(self.answers[version])


def load_questions(source: str | None, most: int | None = None) -> tuple[Question, ...]:
    """Those of `builtin`, of a file, or none; of more than `most`, some from all over the file.

    Raises SourceUnreadable, naming every line that is wrong.
    """
    if source is None:
        return ()
    if source == "builtin":
        path = resources.files("finetune.evaluation") / _BUILTIN
    else:
        path = Path(source)
    try:
        with path.open("rb") as file:
            rows = list(read_jsonl(file, str(path), _LIMIT))
    except OSError as exc:
        raise SourceUnreadable(
            f"evaluation.forgetting: cannot read {path}: {exc.strerror or exc}"
        ) from exc
    found, faults = [], []
    reader = TypeAdapter(Question)
    for row in rows:
        try:
            if row.fault:
                raise ValueError(row.fault)
            found.append(reader.validate_python(row.value))
        except ValidationError as exc:
            for error in exc.errors():
                field = ".".join(str(part) for part in error["loc"]) or "the row"
                faults.append(f"{path}, row {row.number}: {field}: {error['msg']}")
        except ValueError as exc:
            faults.append(f"{path}, row {row.number}: {exc}")
    if faults or not found:
        raise SourceUnreadable("\n".join(faults) or f"{path} holds no questions")
    count = len(found) if most is None else min(most, len(found))
    return tuple(found[index * len(found) // count] for index in range(count))
