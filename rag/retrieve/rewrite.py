"""What a language model makes of a question before the search: stand-alone, reworded, imagined.
An empty answer of the model changes nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rag.protocols import Generator, Message
from rag.retrieve.config import RewriteConfig

__all__ = ["Rewritten", "rewrite"]

_TEMPLATES = Path(__file__).parent / "templates"
_NUMBERING = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s*")


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What to search with."""

    question: str
    """Stands alone."""
    wordings: tuple[str, ...] = ()
    """Others, to search with as well."""
    passage: str | None = None
    """An imagined answer, to embed."""


def rewrite(
    question: str,
    config: RewriteConfig,
    generator: Generator | None,
    history: Sequence[Message] = (),
) -> Rewritten:
    """Apply what the configuration asks for; `history` is the conversation before the question."""
    if generator is None:
        return Rewritten(question)
    if config.conversation and history:
        asked = [*history, Message("user", question)]
        question = _ask(generator, "conversation", _transcript(asked), config) or question
    wordings: tuple[str, ...] = ()
    if config.multi_query:
        answer = _ask(generator, "multi_query", question, config, count=config.multi_query)
        lines = [_NUMBERING.sub("", line).strip() for line in answer.splitlines()]
        wordings = tuple(dict.fromkeys(line for line in lines if line and line != question))
    passage = _ask(generator, "hyde", question, config) if config.hyde else ""
    return Rewritten(question, wordings[: config.multi_query], passage or None)


def _ask(
    generator: Generator, template: str, text: str, config: RewriteConfig, **values: int
) -> str:
    instruction = (_TEMPLATES / f"{template}.txt").read_text(encoding="utf-8").strip()
    messages = (Message("system", instruction.format(**values)), Message("user", text))
    return generator.generate(messages, max_tokens=config.max_tokens).strip()


def _transcript(messages: Sequence[Message]) -> str:
    return "\n".join(f"{message.role}: {message.content}" for message in messages)
