"""One replica of a model: the Serve deployment that grants leases and hosts an engine.

Ray decides who answers; the bytes travel over this replica's own socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import ray
from ray import serve
from starlette.types import ASGIApp

from serving.config import ModelConfig
from serving.engine_thread import EngineThread
from serving.engines import build_engine
from serving.engines.base import AdapterHost, AdapterRef, EngineSpec
from serving.errors import AdapterRefused, CorralError, EngineStalled
from serving.leases import LeaseBook, TicketDoor
from serving.loopback import confine
from serving.progress import Progress

IDLE_PROBE_S = 6.0
"""Time between two probes by Serve of an engine that nobody uses: each wakes it up, and vLLM's
worker spins for a second after it has worked."""
FATAL_STALLS = 3
"""Failed probes in a row after which a replica ends."""
_log = logging.getLogger(__name__)


class Replica:
    """Grants leases on one engine. Methods run on Serve's loop, the engine on its own."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, config: ModelConfig, weights: str | None, runtime_dir: str, listen_tcp: bool
    ) -> None:
        confine()
        self._config = config
        self._name = config.name
        self._node_id = ray.get_runtime_context().get_node_id()
        self._book = LeaseBook()
        self._dropped: set[str] = set()
        self._paths: dict[str, Path] = {}
        self._refused: dict[str, str] = {}
        self._probed_at = 0.0
        self._trial: asyncio.Task[None] | None = None
        progress = Progress(Path(runtime_dir), config.name)
        spec = EngineSpec(model=config.name, weights=Path(weights) if weights else None)
        self._engine = build_engine(spec, config.engine)
        sockets = [_unix_socket(Path(runtime_dir))]
        self._uds = str(sockets[0].getsockname())
        self._tcp: str | None = None
        if listen_tcp:
            sockets.append(_tcp_socket(ray.util.get_node_ip_address()))
            host, port = sockets[1].getsockname()[:2]
            self._tcp = f"{host}:{port}"
        self._thread = EngineThread(self._engine, sockets, self._door)
        progress.phase("loading")
        try:
            await self._thread.start()
        except CorralError as exc:
            progress.failed(str(exc))
            raise
        except Exception as exc:
            progress.failed(f"{type(exc).__name__}: {exc}")
            raise
        progress.phase("ready")
        lora = getattr(config.engine, "lora", None)
        self._resident = self._residents(lora.max_cpu_loras if lora else 1)

    def _door(self, app: ASGIApp) -> ASGIApp:
        return TicketDoor(app, self._book)

    async def lease(
        self, gateway_node: str, adapter: tuple[str, str] | None = None
    ) -> AsyncIterator[tuple[str, str]]:
        """Yield `(address, ticket)` once, then stay open as long as the lease lives.

        A gateway may send several requests on it, one after the other. `adapter` is
        `(engine name, directory)`. The address is a Unix socket's path for gateways on
        this node, `host:port` for others. Raises AdapterRefused.
        """
        if adapter is not None:
            await self._ensure_adapter(AdapterRef(adapter[0], Path(adapter[1])))
        lease = self._book.open(adapter[0] if adapter else None)
        try:
            local = gateway_node == self._node_id or self._tcp is None
            yield (self._uds if local else str(self._tcp), lease.ticket)
            await lease.closed.wait()
        finally:
            self._book.close(lease, self._thread.loop)
            if lease.adapter is not None and lease.adapter in self._dropped:
                await self._drop_adapter(lease.adapter)

    async def load_adapter(self, engine_name: str, path: str) -> None:
        """Load now, so that the first request need not wait. Raises AdapterRefused.

        Tries again what was refused before: this is somebody's wish, not a request's.
        """
        self._refused.pop(engine_name, None)
        await self._ensure_adapter(AdapterRef(engine_name, Path(path)))

    async def unload_adapter(self, engine_name: str) -> None:
        """Free the adapter once its running requests have ended."""
        await self._drop_adapter(engine_name)

    async def status(self) -> dict[str, Any]:
        """What `corral status` shows of a replica."""
        return {
            "model": self._name,
            "replica": serve.get_replica_context().replica_id.unique_id,
            "pid": os.getpid(),
            "running": self._book.running,
            "adapters": self._host().adapters() if isinstance(self._engine, AdapterHost) else [],
            "metrics": await self.metrics(),
        }

    async def metrics(self) -> str:
        """The engine's Prometheus exposition."""
        return await self._thread.call(self._engine.metrics())

    async def probe(self, deadline_s: float) -> None:
        """Raises EngineStalled unless the engine generates. Answers within a second are shared."""
        if time.monotonic() - self._probed_at < 1.0:
            return
        await self._thread.call(self._engine.probe(deadline_s))
        self._probed_at = time.monotonic()

    async def check_health(self) -> None:
        """Called by Serve, whose own patience is for a process that does not answer at all.

        An engine that stalls is put on trial: see `_end_unless_it_moves`.
        """
        idle = not self._book.running and time.monotonic() - self._probed_at < IDLE_PROBE_S
        if idle or self._trial is not None:
            return
        try:
            await self.probe(self._probe_s)
        except EngineStalled as exc:
            _log.warning("%s", exc)
            self._trial = asyncio.create_task(self._end_unless_it_moves())

    async def _end_unless_it_moves(self) -> None:
        """Probe again at once; after `FATAL_STALLS` in a row this process ends.

        Requests that hang on the engine fail then and go to another replica, and Serve starts a
        new one. The engine is not asked to stop, since it would not hear: it is killed.
        """
        for _ in range(FATAL_STALLS - 1):
            try:
                await self._thread.call(self._engine.probe(self._probe_s))
            except EngineStalled as exc:
                _log.warning("%s", exc)
            else:
                self._trial = None
                return
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        Path(self._uds).unlink(missing_ok=True)
        os._exit(1)

    @property
    def _probe_s(self) -> float:
        return self._config.replicas.health_timeout_s * 0.8

    async def __del__(self) -> None:
        thread = getattr(self, "_thread", None)
        if thread is not None:
            await thread.stop()
            Path(self._uds).unlink(missing_ok=True)

    def _host(self) -> AdapterHost:
        if not isinstance(self._engine, AdapterHost):
            raise AdapterRefused(f"model {self._name!r} does not serve adapters")
        return self._engine

    async def _ensure_adapter(self, adapter: AdapterRef) -> None:
        host, name = self._host(), adapter.engine_name
        if name in self._refused:
            raise AdapterRefused(self._refused[name])
        self._paths[name] = adapter.path
        try:
            await self._resident(name)
            if name not in host.adapters():
                await self._thread.call(host.load_adapter(adapter))
        except AdapterRefused as exc:
            # A version never changes, and a try costs the engine time that others pay for.
            self._refused[name] = str(exc)
            raise
        self._dropped.discard(name)

    def _residents(self, limit: int) -> Callable[[str], Awaitable[_Resident]]:
        """Loads by engine name, known to Serve's router; beyond `limit` the oldest goes."""

        async def load(engine_name: str) -> _Resident:
            adapter = AdapterRef(engine_name, self._paths[engine_name])
            await self._thread.call(self._host().load_adapter(adapter))
            return _Resident(self._drop_adapter, engine_name)

        resident: Callable[[str], Awaitable[_Resident]] = serve.multiplexed(
            max_num_models_per_replica=limit
        )(load)
        return resident

    async def _drop_adapter(self, engine_name: str) -> None:
        """Unload unless requests still use it; then the last of them does it."""
        if self._book.end_idle(engine_name):
            self._dropped.add(engine_name)
            return
        self._dropped.discard(engine_name)
        await self._thread.call(self._host().unload_adapter(engine_name))


class _Resident:
    """What Serve's multiplexing holds for a loaded adapter; it calls `__del__` on the oldest.

    The attribute belongs to the instance, so that Python's own collector does not call it.
    """

    def __init__(self, drop: Callable[[str], Awaitable[None]], engine_name: str) -> None:
        async def evict() -> None:
            await drop(engine_name)

        self.__del__ = evict


def _unix_socket(folder: Path) -> socket.socket:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"engine-{uuid.uuid4().hex[:12]}.sock"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    path.chmod(0o600)
    sock.listen(1024)
    return sock


def _tcp_socket(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.bind((host, 0))
    sock.listen(1024)
    return sock
