"""The seam between jobs and the machines that train: who starts an attempt, and where."""

from __future__ import annotations

import asyncio
import threading
from typing import Protocol

from serving.finetuning.shop import Shop
from serving.finetuning.watch import work


class JobRunner(Protocol):
    """Runs attempts at jobs. What becomes of them, they tell the store themselves."""

    async def start(self, job_id: str) -> None:
        """Have an attempt made as soon as there is hardware for it. Idempotent."""
        ...

    async def held(self) -> set[str]:
        """Jobs that are being worked on, or that wait for hardware."""
        ...

    async def drop(self, job_id: str) -> None:
        """Let go of a job: what still works on it ends. Unknown ones are ignored."""
        ...

    async def close(self) -> None:
        """The stack ends: interrupt what would end with it."""
        ...


class LocalRunner:
    """Attempts on threads of this process, for a stack without Ray."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._working: dict[str, tuple[threading.Thread, threading.Event]] = {}

    async def start(self, job_id: str) -> None:
        """See `JobRunner.start`."""
        if job_id in await self.held():
            return
        stop = threading.Event()
        # Not of a pool: the trainer dies with the thread that started it.
        thread = threading.Thread(
            target=work, args=(self._shop, job_id, stop), name=f"job-{job_id}", daemon=True
        )
        self._working[job_id] = thread, stop
        thread.start()

    async def held(self) -> set[str]:
        """See `JobRunner.held`."""
        self._working = {id: one for id, one in self._working.items() if one[0].is_alive()}
        return set(self._working)

    async def drop(self, job_id: str) -> None:
        """See `JobRunner.drop`."""
        if job_id in self._working:
            self._working[job_id][1].set()

    async def close(self) -> None:
        """See `JobRunner.close`: every trainer writes a checkpoint, and its job is queued again."""
        working = list(self._working.values())
        for _, stop in working:
            stop.set()
        for thread, _ in working:
            await asyncio.to_thread(thread.join)
