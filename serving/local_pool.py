"""`Pool` in this process: one engine behind the real door on a Unix socket, without Ray.

For tests, and for embedding the gateway where one engine is enough. What a request
passes through is what it passes through in a cluster; only the choice of a replica,
of which there is one, is left out.
"""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from pathlib import Path
from typing import Any

from serving.config import ModelConfig
from serving.engine_thread import EngineThread
from serving.engines.base import AdapterHost, AdapterRef, Engine
from serving.errors import AdapterRefused, EngineStalled, PoolBusy, PoolUnavailable
from serving.gateway.pool import Capacity
from serving.leases import Lease, LeaseBook, TicketDoor
from serving.sleeping import Sleep

PROBE_DEADLINE_S = 5.0


class LocalLease:
    """A lease and the task that holds it open, as an open handle call does in Ray."""

    def __init__(self, pool: LocalPool, address: str, lease: Lease) -> None:
        self.address = address
        self.ticket = lease.ticket
        self.adapter = lease.adapter
        self._pool = pool
        self._closed = lease.closed
        self._holder = asyncio.ensure_future(pool.hold(lease))

    @property
    def open(self) -> bool:
        return not self._closed.is_set()

    def release(self) -> None:
        """See `Lease.release`."""
        self._pool.keep(self)

    def abandon(self) -> None:
        """See `Lease.abandon`."""
        self._closed.set()


class LocalPool:
    """One replica of one model, its engine on a thread of its own.

    async with LocalPool(config, engine, Path("/run/corral")) as pool: ...
    """

    def __init__(self, config: ModelConfig, engine: Engine, folder: Path) -> None:
        self._config = config
        self._engine = engine
        self._address = str(folder / f"engine-{uuid.uuid4().hex[:12]}.sock")
        self._slots = asyncio.Semaphore(config.replicas.max_ongoing_requests)
        self._idle: list[LocalLease] = []

    async def __aenter__(self) -> LocalPool:
        self._book = LeaseBook()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self._address)
        os.chmod(self._address, 0o600)
        listener.listen(1024)
        self._thread = EngineThread(
            self._engine, [listener], lambda app: TicketDoor(app, self._book)
        )
        self._sleep = Sleep(self._config.name, self._engine, self._thread, self._book)
        await self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for lease in self._idle:
            lease.abandon()
        await self._thread.stop()
        Path(self._address).unlink(missing_ok=True)

    async def lease(self, adapter: AdapterRef | None, deadline_s: float) -> LocalLease:
        """See `Pool.lease`: an idle lease, or a new one when there is room."""
        name = adapter.engine_name if adapter else None
        self._idle = [lease for lease in self._idle if lease.open]
        for kept in reversed(self._idle):
            if kept.adapter == name:
                self._idle.remove(kept)
                return kept
        try:
            async with asyncio.timeout(deadline_s):
                await self._sleep.over()
                await self._slots.acquire()
        except TimeoutError as exc:
            raise PoolBusy(
                f"{self._config.name!r} was not free within {deadline_s:g} s", 1
            ) from exc
        try:
            if adapter is not None and adapter.engine_name not in self._host().adapters():
                await self._thread.call(self._host().load_adapter(adapter))
        except BaseException:
            self._slots.release()
            raise
        return LocalLease(self, self._address, self._book.open(name))

    async def capacity(self) -> Capacity:
        """See `Pool.capacity`."""
        try:
            self._sleep.check()
            await self._thread.call(self._engine.probe(PROBE_DEADLINE_S))
        except EngineStalled as exc:
            return Capacity(ready=False, replicas=1, detail=str(exc))
        return Capacity(ready=True, replicas=1)

    async def broadcast(self, method: str, *args: Any) -> list[Any]:
        """See `Pool.broadcast`: `status`, `load_adapter(name, path)`,
        `unload_adapter(name)`, `sleep`, `wake`."""
        match method, args:
            case "status", ():
                return [await self._status()]
            case "load_adapter", (str(name), str(path)):
                adapter = AdapterRef(name, Path(path))
                return [await self._thread.call(self._host().load_adapter(adapter))]
            case "sleep", ():
                await self._sleep.begin()
                return [None]
            case "wake", ():
                await self._sleep.end()
                return [None]
            case "unload_adapter", (str(name),):
                self._book.end_idle(name)
                return [await self._thread.call(self._host().unload_adapter(name))]
        raise PoolUnavailable(f"a replica has no {method!r}")

    async def hold(self, lease: Lease) -> None:
        """Lives as long as the lease, and ends what still runs on it."""
        try:
            await lease.closed.wait()
        finally:
            self._book.close(lease, self._thread.loop)
            self._slots.release()

    def keep(self, lease: LocalLease) -> None:
        """Give the lease to the next request, unless it ends first."""
        self._idle.append(lease)

    async def _status(self) -> dict[str, Any]:
        return {
            "model": self._config.name,
            "replica": "local",
            "pid": os.getpid(),
            "running": self._book.running,
            "adapters": self._engine.adapters() if isinstance(self._engine, AdapterHost) else [],
            "metrics": await self._thread.call(self._engine.metrics()),
        }

    def _host(self) -> AdapterHost:
        if not isinstance(self._engine, AdapterHost):
            raise AdapterRefused(f"model {self._config.name!r} does not serve adapters")
        return self._engine
