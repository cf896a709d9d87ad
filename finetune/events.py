"""`events.jsonl`: what a run did, append-only, one JSON object a line. Loads nothing heavy.

    {"at": 1753500000.1, "level": "info", "type": "metrics", "message": "step 5/60: loss 1.234",
     "data": {"step": 5, "total_steps": 60, "train_loss": 1.234, …}}

Metrics carry the names of OpenAI's fine-tuning events; quantities that were not measured at a
step are left out of it.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

EVENTS = "events.jsonl"
Level = Literal["info", "warn", "error"]
Type = Literal["message", "metrics", "checkpoint", "state"]
State = Literal[
    "validating", "running", "evaluating", "exporting", "succeeded", "failed", "interrupted"
]


@dataclass(frozen=True)
class Event:
    """One thing that happened."""

    at: float
    """Seconds since 1970, UTC."""
    level: Level
    type: Type
    message: str
    """One line for people."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """The same for machines; its keys depend on the type."""


OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class EventPage:
    """Events from one reading."""

    events: tuple[Event, ...]
    after: int
    """Byte offset to go on from."""


class EventLog:
    """Writes events of one run, each flushed; hands each to `on_event` as well."""

    def __init__(self, folder: Path, on_event: OnEvent | None = None) -> None:
        self._path = folder / EVENTS
        self._on_event = on_event
        _end_torn_line(self._path)

    def emit(
        self, type: Type, message: str, data: Mapping[str, Any] | None = None, level: Level = "info"
    ) -> None:
        """Append one event. NaN and infinity become null, which JSON has."""
        event = Event(time.time(), level, type, message, _finite(data or {}))
        line = json.dumps(asdict(event), ensure_ascii=False, allow_nan=False)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
        if self._on_event is not None:
            self._on_event(event)

    def state(self, state: State, error: Mapping[str, Any] | None = None) -> None:
        """The run enters a state; a failed one says why (`code`, `message`, `param`)."""
        message = state if error is None else f"{state}: {error.get('message')}"
        self.emit("state", message, {"state": state, "error": error}, "error" if error else "info")


def read_events(folder: Path, after: int = 0) -> EventPage:
    """Events of a run's folder from the byte offset `after`; a line half written is left for
    the next reading. A folder without events gives none."""
    try:
        with (folder / EVENTS).open("rb") as file:
            file.seek(after)
            read = file.read()
    except FileNotFoundError:
        return EventPage((), after)
    whole = read[: read.rfind(b"\n") + 1]
    events = [event for line in whole.splitlines() if (event := _parse(line)) is not None]
    return EventPage(tuple(events), after + len(whole))


def _parse(line: bytes) -> Event | None:
    """None for what a crash left torn."""
    try:
        value = json.loads(line)
        return Event(**value)
    except (ValueError, TypeError):
        return None


def _end_torn_line(path: Path) -> None:
    """A process killed while it wrote leaves half a line, which must not swallow the next."""
    try:
        with path.open("rb+") as file:
            if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) >= 0:
                torn = file.read(1) != b"\n"
                if torn:
                    file.write(b"\n")
    except FileNotFoundError:
        return


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
