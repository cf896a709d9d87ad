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

    async def wake_all_but(self, wanted: set[str]) -> None:
        """Wake every engine that no job needs asleep."""
        first, self._begun = not self._begun, True
        # Whoever held the task before may have left engines asleep.
        for model in set(self._pools) if first else self._asleep - wanted:
            if model not in wanted and await self._tell(model, "wake"):
                self._asleep.discard(model)
        self._ticks += 1
        if self._ticks % self.AGAIN_TICKS == 0:
            for model in wanted & self._asleep:
                await self._tell(model, "sleep")

    async def put_to_sleep(self, model: str) -> bool:
        """True when every replica sleeps, and its GPU is free. Requests wait from now on."""
        if model not in self._asleep and not await self._tell(model, "sleep"):
            return False
        self._asleep.add(model)
        return True

    async def _tell(self, model: str, what: str) -> bool:
        try:
            await self._pools[model].broadcast(what)
        except CorralError as exc:
            _log.warning("engine of %s: %s: %s", model, what, exc)
            return False
        return True
