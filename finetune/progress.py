"""Shows a run on a terminal as one line that is rewritten, elsewhere as plain lines."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from finetune.events import Event

_EVERY_S = 5.0
_GIB = 1 << 30


class ProgressView:
    """Takes events."""

    def __init__(self, out: TextIO = sys.stderr) -> None:
        self._out = out
        self._live = out.isatty()
        self._next = 0.0
        self._open = False

    def __call__(self, event: Event) -> None:
        """Show one."""
        if event.type != "metrics":
            self._print(
                event.message if event.level == "info" else f"{event.level}: {event.message}"
            )
            return
        line = metrics_line(event)
        if self._live:
            self._out.write(f"\r\x1b[K{line}")
            self._open = True
            self._out.flush()
        elif time.monotonic() >= self._next or "full_valid_loss" in event.data:
            self._print(line)
            self._next = time.monotonic() + _EVERY_S

    def _print(self, line: str) -> None:
        start = "\n" if self._open else ""
        self._open = False
        print(f"{start}{line}", file=self._out, flush=True)


def metrics_line(event: Event) -> str:
    """Loss, speed, time left and memory."""
    data = event.data
    parts = [event.message]
    if (speed := data.get("tokens_per_second")) is not None:
        parts.append(f"{speed:,.0f} tokens/s")
    if (left := data.get("eta_s")) is not None:
        parts.append(f"{_clock(left)} left")
    if (memory := data.get("peak_memory_bytes")) is not None:
        parts.append(f"{memory / _GIB:.1f} GiB")
    return "  ".join(parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
