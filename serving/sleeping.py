"""A replica's sleep: no request is let in, those that run end, then the engine frees its GPU."""

from __future__ import annotations

import asyncio

from serving.engine_thread import EngineThread
from serving.engines.base import Engine, Sleeper
from serving.errors import CannotSleep, EngineStalled
from serving.leases import LeaseBook

DRAIN_POLL_S = 0.05
DRAIN_S = 45.0
"""Longest wait for requests that run; the call that asked is given up a little later."""


class Sleep:
    """Of one engine. Used on the loop that created it."""

    def __init__(self, model: str, engine: Engine, thread: EngineThread, book: LeaseBook) -> None:
        self._model = model
        self._engine = engine
        self._thread = thread
        self._book = book
        self._awake = asyncio.Event()
        self._awake.set()
        self._turn = asyncio.Lock()

    @property
    def asleep(self) -> bool:
        """Whether requests are kept waiting."""
        return not self._awake.is_set()

    async def over(self) -> None:
        """Return when the engine is awake."""
        await self._awake.wait()

    async def begin(self) -> None:
        """Sleep. Idempotent. Raises CannotSleep, also when running requests do not end."""
        engine = self._engine
        if not isinstance(engine, Sleeper):
            raise CannotSleep(f"the engine of {self._model!r} has no sleep")
        async with self._turn:
            if self.asleep:
                return
            self._awake.clear()
            self._book.closed = True
            try:
                await self._drain()
                await self._thread.call(engine.sleep())
            except BaseException:
                self._open()
                raise

    async def end(self) -> None:
        """Wake up. Idempotent."""
        async with self._turn:
            if self.asleep:
                assert isinstance(self._engine, Sleeper)
                await self._thread.call(self._engine.wake())
                self._open()

    def check(self) -> None:
        """Raises EngineStalled while it sleeps: it cannot answer now, though nothing is wrong."""
        if self.asleep:
            raise EngineStalled(f"{self._model} sleeps while a fine-tuning job has its GPU")

    def _open(self) -> None:
        self._book.closed = False
        self._awake.set()

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_S):
                while self._book.running:  # noqa: ASYNC110 - ends on another loop
                    await asyncio.sleep(DRAIN_POLL_S)
        except TimeoutError as exc:
            raise CannotSleep(
                f"requests to {self._model!r} did not end within {DRAIN_S:g} s; it stays awake"
            ) from exc
