"""The seam between the gateway and whoever decides which replica answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from serving.engines.base import AdapterRef


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
