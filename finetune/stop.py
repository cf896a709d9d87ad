"""Stopping on a signal, at the next place where nothing is lost. Loads nothing heavy."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Whether the run was asked to stop. The same may be asked by code: `stop.request()`."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def request(self) -> None:
        """Ask."""
        self._asked.set()

    @property
    def requested(self) -> bool:
        """Whether anybody asked."""
        return self._asked.is_set()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT ask; a second one does what it did before. Only the main thread
        can listen; elsewhere nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}

        def ask(number: int, _: FrameType | None) -> None:
            self.request()
            signal.signal(number, before[signal.Signals(number)])

        for number in SIGNALS:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
