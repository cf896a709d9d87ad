"""Labelled questions, read from JSON Lines:

    {"question": "…", "relevant": {"handbook/leave.md": 1},
     "spans": [{"document": "handbook/leave.md", "start": 120, "end": 180}],
     "answers": ["25 days"]}

`relevant` grades documents by URI, or by the end of one after a slash; everything but `question`
may be left out.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from configs import StrictModel
from rag.errors import SourceUnreadable
from rag.types import Span

__all__ = ["LabelledSpan", "Question", "read_questions"]


class LabelledSpan(StrictModel):
    """Characters of a document that answer."""

    document: str
    start: int = Field(ge=0)
    end: int = Field(gt=0)

    @property
    def characters(self) -> Span:
        return Span(self.start, self.end)


class Question(StrictModel):
    """A question and what is right."""

    question: str
    relevant: dict[str, int] = Field(default_factory=dict)
    spans: tuple[LabelledSpan, ...] = ()
    answers: tuple[str, ...] = ()
    id: str = ""


def read_questions(path: Path) -> list[Question]:
    """Every line of the file. Raises SourceUnreadable, naming the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise SourceUnreadable(f"cannot read the questions in {path}: {exc}") from exc
    questions = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            questions.append(Question.model_validate_json(line))
        except ValidationError as exc:
            first = exc.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the line"
            raise SourceUnreadable(f"{path}:{number}: {where}: {first['msg']}") from exc
    if not questions:
        raise SourceUnreadable(f"{path} has no questions")
    return questions
