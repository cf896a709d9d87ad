"""What passes between the steps: raw rows, faults and examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

Part = Literal["train", "validation"]


class Message(TypedDict, total=False):
    """One message as chat templates take it: text only, tool arguments parsed, weights 0 or 1."""

    role: str
    content: str
    name: str
    reasoning_content: str
    tool_calls: list[dict[str, Any]]
    tool_call_id: str
    weight: int


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as read. `number` counts from 1 (a file's line); a `fault` replaces the value."""

    number: int
    value: Any = None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one field of one row. Row 0 means the whole source."""

    source: str
    row: int
    field: str
    reason: str

    def __str__(self) -> str:
        where = f"{self.source}, row {self.row}" if self.row else self.source
        return f"{where}: {self.field}: {self.reason}" if self.field else f"{where}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages of which those of the assistant with weight 1 are learnt."""

    messages: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Completion:
    """Plain text and its continuation; only the continuation is learnt."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Preference:
    """Two answers to the same prompt, for direct preference optimisation."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)


Example = Conversation | Completion | Preference


class Problems:
    """Collects what is wrong with one row, so that all of it is reported at once."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []

    def add(self, field: str, reason: str) -> None:
        """Record that `field` (`messages[2].role`) is wrong for `reason`."""
        self.found.append((field, reason))

    def faults(self, source: str, row: int) -> Sequence[Fault]:
        """What was found, said of this row of this source."""
        return [Fault(source, row, field, reason) for field, reason in self.found]


def kind_of(value: Any) -> str:
    """What a JSON value is, in words for messages."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
        case _:
            return f"a {type(value).__name__}"
