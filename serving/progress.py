"""Start-up progress, from replicas to the command that started them, over a shared file."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

FILE = "progress.jsonl"


@dataclass(frozen=True)
class Event:
    """One line of the file. `phase` is loading, ready or failed."""

    model: str
    phase: str
    detail: str
    pid: int
    at: float


class Progress:
    """Appends what one replica is doing. A line is one write, so replicas may share the file."""

    def __init__(self, runtime_dir: Path, model: str) -> None:
        self._path = runtime_dir / FILE
        self._model = model

    def phase(self, phase: str, detail: str = "") -> None:
        """Record that the replica entered `phase`."""
        event = Event(self._model, phase, detail, os.getpid(), time.time())
        line = json.dumps(event.__dict__) + "\n"
        with self._path.open("ab", buffering=0) as file:
            file.write(line.encode())

    def failed(self, cause: str) -> None:
        """Record why the replica could not start."""
        self.phase("failed", cause)


def read(runtime_dir: Path) -> list[Event]:
    """All events so far, oldest first; a line that is still being written is left for later."""
    try:
        text = (runtime_dir / FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [Event(**json.loads(line)) for line in text.split("\n")[:-1]]
