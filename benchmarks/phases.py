"""What a command prints while it starts, with the time of each line."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Phases"]


@dataclass
class Phases:
    """Lines of a log and when they appeared, in seconds since the start."""

    began: float = field(default_factory=time.monotonic)
    lines: list[tuple[float, str]] = field(default_factory=list)

    def read(self, log: Path) -> None:
        """Note the complete lines that are new."""
        text = log.read_text(errors="replace")
        complete = text[: text.rfind("\n") + 1].splitlines()
        at = time.monotonic() - self.began
        self.lines += [(at, line.strip()) for line in complete[len(self.lines) :]]
