"""When each token of each stream is due, at as little cost per token as a loop allows."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count
from pathlib import Path

__all__ = ["Pacer", "Turn"]

SLACK_S = 0.0005
"""Everything due this soon is released together: loop timers are no finer than 1 ms."""
HANG_POLL_S = 0.02


class Turn:
    """One request's wait for its next token; `leave` ends it from outside."""

    __slots__ = ("gone", "tokens", "waiter")

    def __init__(self) -> None:
        self.gone = False
        self.tokens = 0
        self.waiter: asyncio.Future[None] | None = None

    def leave(self) -> None:
        """The client went away: the wait ends now, and `gone` says why."""
        self.gone = True
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class Pacer:
    """Wakes turns when they are due. One loop timer serves all streams of an engine.

    While `hang` names an existing file nobody is woken.
    """

    def __init__(self, hang: Path | None) -> None:
        self._hang = hang
        self._due: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    async def wait(self, turn: Turn, due: float) -> None:
        """Return at loop time `due`, or at once when `turn` leaves."""
        if turn.gone:
            return
        loop = asyncio.get_running_loop()
        if self._hang is None and due <= loop.time():
            await asyncio.sleep(0)
            return
        turn.waiter = waiter = loop.create_future()
        heapq.heappush(self._due, (due, next(self._order), waiter))
        if self._timer is None or due < self._timer_at - SLACK_S:
            self._arm(loop, due)
        await waiter

    def close(self) -> None:
        """Wake nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._due.clear()

    def _arm(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = loop.call_at(at, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        if self._hang is not None and self._hang.exists():
            self._arm(loop, now + HANG_POLL_S)
            return
        due, now = self._due, now + SLACK_S
        while due and due[0][0] <= now:
            waiter = heapq.heappop(due)[2]
            if not waiter.done():
                waiter.set_result(None)
        if due:
            self._arm(loop, due[0][0])
