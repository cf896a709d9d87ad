"""`share: pause`: engines sleep while a job on their model trains, and wake when it is over."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from serving.errors import CorralError
from serving.gateway.pool import Pool

_log = logging.getLogger(__name__)


class Sharing:
    """Puts engines to sleep and wakes them. What it was told last is said again now and then,
    since a replica that starts meanwhile starts awake."""

    AGAIN_TICKS = 10

    def __init__(self, pools: Mapping[str, Pool]) -> None:
        self._pools = pools
        self._asleep: set[str] = set()
        self._ticks = 0
        self._begun = False

    def forget(self) -> None:
        """Another process does this now: what it says, this one does not hear."""
        self._begun = False
        self._asleep.clear()

    async def wake_all_but(self, wanted: set[str]) -> None:
        """Wake every engine that no job needs asleep."""
        if not self._begun:  # whoever did this before may have left any of them asleep
            self._begun = True
            self._asleep |= set(self._pools)
        for model in self._asleep - wanted:
            if await self._tell(model, "wake"):
                self._asleep.discard(model)
        self._ticks += 1
        if self._ticks % self.AGAIN_TICKS == 1:
            for model in wanted & self._asleep:
                await self._tell(model, "sleep")

    async def put_to_sleep(self, model: str) -> bool:
        """True when every replica sleeps, and its GPU is free. Requests wait from now on."""
        self._asleep.add(model)
        return await self._tell(model, "sleep")

    async def _tell(self, model: str, what: str) -> bool:
        try:
            await self._pools[model].broadcast(what)
        except CorralError as exc:
            _log.warning("engine of %s: %s: %s", model, what, exc)
            return False
        return True
