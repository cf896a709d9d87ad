"""The gateway's client to replicas: HTTP/1.1 over Unix or TCP sockets, made for streaming.

One future and one task switch per chunk; everything else is done once a request.
Responses are parsed by httptools. Connections are kept and reused per address.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import httptools

PAUSE_BYTES = 1 << 20
CONNECT_TIMEOUT_S = 5.0
MAX_IDLE_PER_ADDRESS = 512


class UpstreamError(ConnectionError):
    """The replica could not be reached, or closed before the response was whole."""


@dataclass(frozen=True)
class ResponseHead:
    """Status and headers of a response; the body follows by `read`."""

    status: int
    headers: list[tuple[bytes, bytes]]


class Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_lost: Callable[[Connection], None]
    ) -> None:
        self._loop = loop
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._head: asyncio.Future[ResponseHead] | None = None
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._complete = False
        self._lost = False
        self._keep_alive = False

    @property
    def reusable(self) -> bool:
        """Whether the response was read to its end and the replica keeps the connection open."""
        return self._complete and self._keep_alive and not self._lost

    async def request(self, message: bytes) -> ResponseHead:
        """Send a whole request and await the head. Raises UpstreamError."""
        if self._lost or self._transport is None or self._transport.is_closing():
            raise UpstreamError("the connection was closed while idle")
        self._parser = httptools.HttpResponseParser(self)
        self._headers = []
        self._complete = False
        self._head = self._loop.create_future()
        self._transport.write(message)
        return await self._head

    async def read(self) -> bytes:
        """All body bytes that have come since the last call; empty at the end.

        Raises UpstreamError when the connection breaks before the end.
        """
        while not self._chunks:
            if self._complete:
                return b""
            if self._lost:
                raise UpstreamError("the replica closed the connection before the answer's end")
            self._waiter = self._loop.create_future()
            await self._waiter
        if len(self._chunks) == 1:
            data = self._chunks.popleft()
        else:
            data = b"".join(self._chunks)
            self._chunks.clear()
        self._buffered = 0
        if self._paused and self._transport is not None:
            self._paused = False
            if not self._lost:
                self._transport.resume_reading()
        return data

    def close(self) -> None:
        """Drop the connection at once; the replica aborts what it still computes."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio callback."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """asyncio callback."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()
        if self._buffered > PAUSE_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio callback."""
        self._lost = True
        self._on_lost(self)
        if self._head is not None and not self._head.done():
            self._head.set_exception(UpstreamError("the replica closed the connection"))
        self._wake()

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools callback."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """httptools callback."""
        self._keep_alive = self._parser.should_keep_alive()
        if self._head is not None and not self._head.done():
            self._head.set_result(ResponseHead(self._parser.get_status_code(), self._headers))

    def on_body(self, data: bytes) -> None:
        """httptools callback."""
        self._chunks.append(data)
        self._buffered += len(data)
        self._wake()

    def on_message_complete(self) -> None:
        """httptools callback."""
        self._complete = True
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)


class Upstream:
    """Connections to replicas, kept per address."""

    def __init__(self) -> None:
        self._idle: dict[str, list[Connection]] = {}

    async def connect(self, address: str) -> Connection:
        """An idle or a new connection to `address`. Raises UpstreamError."""
        idle = self._idle.get(address)
        if idle:
            return idle.pop()
        loop = asyncio.get_running_loop()

        def make() -> Connection:
            return Connection(loop, lambda connection: self._forget(address, connection))

        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                if address.startswith("/"):
                    _, made = await loop.create_unix_connection(make, address)
                else:
                    host, _, port = address.rpartition(":")
                    _, made = await loop.create_connection(make, host.strip("[]"), int(port))
        except OSError as exc:  # includes TimeoutError
            raise UpstreamError(f"cannot connect to the replica: {exc}") from exc
        return made

    def release(self, address: str, connection: Connection) -> None:
        """Keep the connection for the next request, or close it when that cannot be."""
        if connection.reusable:
            idle = self._idle.setdefault(address, [])
            if len(idle) < MAX_IDLE_PER_ADDRESS:
                idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close every idle connection."""
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle.clear()

    def _forget(self, address: str, connection: Connection) -> None:
        idle = self._idle.get(address)
        if idle is None:
            return
        if connection in idle:
            idle.remove(connection)
        if not idle:
            del self._idle[address]
