"""The seam between the gateway and whoever decides which replica answers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol

from serving.engines.base import AdapterRef
from serving.errors import CorralError

STATUS_TIMEOUT_S = 5.0
"""Models whose replicas do not answer within this are left out of metrics and status."""


@dataclass(frozen=True)
class Capacity:
    """Whether a pool can generate now."""

    ready: bool
    replicas: int
    detail: str = ""


class Lease(Protocol):
    """The right to have one request at a time on one replica."""

    address: str
    """Path of a Unix socket, or `host:port`."""
    ticket: str

    def release(self) -> None:
        """The answer was read to its end; the pool may give the lease to the next request."""
        ...

    def abandon(self) -> None:
        """End the lease, and what still runs on it. Idempotent, never raises."""
        ...


class Pool(Protocol):
    """All replicas of one model."""

    async def lease(self, adapter: AdapterRef | None, deadline_s: float) -> Lease:
        """A lease on the best replica. Raises PoolBusy, PoolUnavailable, AdapterRefused."""
        ...

    async def capacity(self) -> Capacity:
        """Proves that at least one replica generates."""
        ...

    async def broadcast(self, method: str, *args: Any) -> list[Any]:
        """Call `method` on every replica; raises the first error."""
        ...


async def statuses(pool: Pool) -> list[dict[str, Any]]:
    """Of all replicas; none when they do not answer, which must not hide the other models."""
    try:
        async with asyncio.timeout(STATUS_TIMEOUT_S):
            return await pool.broadcast("status")
    except (CorralError, TimeoutError):
        return []
