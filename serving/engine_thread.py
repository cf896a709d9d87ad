"""Runs an engine and its HTTP application on a thread and event loop of their own.

The replica's loop stays free for leases and health checks whatever the engine does.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import uvicorn
import uvloop
from starlette.types import ASGIApp

from serving.engines.base import Engine

T = TypeVar("T")
KEEP_ALIVE_S = 3600


class EngineThread:
    """An engine, served on `sockets` as long as the thread lives."""

    def __init__(
        self, engine: Engine, sockets: list[socket.socket], wrap: Callable[[ASGIApp], ASGIApp]
    ) -> None:
        self._engine = engine
        self._sockets = sockets
        self._wrap = wrap
        self._server: _Server | None = None
        self._ready: Future[None] = Future()
        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    async def start(self) -> None:
        """Returns when the engine answers; raises what its start raised."""
        self._thread.start()
        await asyncio.wrap_future(self._ready)

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the engine's loop and await it from another one."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    async def stop(self) -> None:
        """End the HTTP server, then the engine."""
        if self._server is not None:
            self.loop.call_soon_threadsafe(self._server.leave.set)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join, 15.0)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._serve())
        except BaseException as exc:
            if self._ready.done():
                raise
            # uvicorn exits when a lifespan fails; that must not end the whole replica.
            died = exc if isinstance(exc, Exception) else RuntimeError(f"the server ended: {exc!r}")
            self._ready.set_exception(died)
        else:
            if not self._ready.done():
                self._ready.set_exception(RuntimeError("the server ended before it listened"))

    async def _serve(self) -> None:
        try:
            app = await self._engine.start()
            config = uvicorn.Config(
                self._wrap(app),
                http="httptools",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=5,
            )
            self._server = _Server(config, self._ready)
            await self._server.serve(self._sockets)
        finally:
            await self._engine.stop()


class _Server(uvicorn.Server):
    """Says when it listens, and sleeps until it is told to leave."""

    def __init__(self, config: uvicorn.Config, listening: Future[None]) -> None:
        super().__init__(config)
        self._listening = listening
        self.leave = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's hook."""
        await super().startup(sockets)
        if self.started:
            self._listening.set_result(None)

    async def main_loop(self) -> None:
        """uvicorn's hook, by default a look at the clock ten times a second."""
        await self.leave.wait()
