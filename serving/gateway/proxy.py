"""The token path: one request to one replica, bytes back as they come.

Everything that costs is done once a request; a chunk costs one read and one send.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from serving.config import GatewayConfig
from serving.errors import CorralError, PoolUnavailable
from serving.gateway.directory import Directory, Target
from serving.gateway.door import REQUEST_ID, RESPONSE_HEADERS, Headers, with_headers
from serving.gateway.errors import ApiError, from_corral, from_engine
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.pool import Lease
from serving.gateway.request import RequestReader
from serving.gateway.upstream import Connection, ResponseHead, Upstream, UpstreamError
from serving.leases import STALE_STATUS

_log = logging.getLogger(__name__)

ATTEMPTS = 3
"""Tries at a replica before any byte of the answer was sent. Generation has no side effects."""


@dataclass
class _Exchange:
    """One attempt: the lease, the connection it was spent on, and what has come back so far.

    `first` is the whole body of a plain answer, and the first bytes of a streamed one.
    """

    lease: Lease
    connection: Connection
    head: ResponseHead
    first: bytes


class Proxy:
    """ASGI endpoint of every route that an engine answers."""

    def __init__(
        self, config: GatewayConfig, directory: Directory, metrics: GatewayMetrics
    ) -> None:
        self._config = config
        self._max_body_bytes = int(config.max_body_mib * 2**20)
        self._directory = directory
        self._metrics = metrics
        self._upstream = Upstream()
        self._reader = RequestReader(config.limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        request_id: str = scope[REQUEST_ID]
        headers: Headers = scope[RESPONSE_HEADERS]
        started = time.perf_counter()
        model, status, exchange = "", 500, None
        self._metrics.in_flight.inc()
        try:
            body = await self._read_body(scope, receive)
            if self._config.log_content:
                _log.warning("request %s to %s: %r", request_id, path, body)
            request = self._reader.read(path, body)
            target = self._directory.resolve(request.model, path)
            model = target.served.config.name
            if target.adapter is not None:
                request.set("model", target.adapter.engine_name)
            message = _Message(path, request_id, request.encode(), request.stream)
            exchange = await self._exchange(message, target)
            status = exchange.head.status
            if status >= 400:
                raise from_engine(status, await self._rest(exchange))
            self._metrics.first_byte(model, time.perf_counter() - started)
            await self._answer(path, exchange, send, headers)
        except ApiError as exc:
            status = exc.status
            await exc.send(path, with_headers(send, headers))
        except CorralError as exc:
            error = from_corral(exc)
            status = error.status
            await error.send(path, with_headers(send, headers))
        except asyncio.CancelledError:
            status = 499
            raise
        except Exception:
            _log.exception("request %s to %s failed", request_id, path)
            if exchange is not None:
                raise  # the head may be on its way
            error = ApiError(500, f"internal error in request {request_id}", code="internal_error")
            await error.send(path, with_headers(send, headers))
        finally:
            self._metrics.in_flight.dec()
            self._metrics.observe(path, model, status, time.perf_counter() - started)

    async def _read_body(self, scope: Scope, receive: Receive) -> bytes:
        if scope["method"] != "POST":
            raise ApiError(405, f"{scope['path']} takes POST", headers=[(b"allow", b"POST")])
        declared = next((v for n, v in scope["headers"] if n == b"content-length"), b"")
        if declared.isdigit() and int(declared[:20]) > self._max_body_bytes:
            raise self._too_large()
        try:
            async with asyncio.timeout(self._config.http.body_timeout_s):
                return await self._receive_body(receive)
        except TimeoutError as exc:
            limit = self._config.http.body_timeout_s
            raise ApiError(
                408, f"the request body took longer than {limit} s", headers=_CLOSE
            ) from exc

    async def _receive_body(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ApiError(499, "the client went away")
            part = message.get("body", b"")
            size += len(part)
            if size > self._max_body_bytes:
                raise self._too_large()
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    def _too_large(self) -> ApiError:
        limit = self._config.max_body_mib
        return ApiError(413, f"the request body is larger than {limit:g} MiB", headers=_CLOSE)

    async def _exchange(self, message: _Message, target: Target) -> _Exchange:
        """Lease, send, and await the answer's start; on a broken replica, with another lease."""
        pool = target.served.pool
        for attempt in range(1, ATTEMPTS + 1):
            lease = await pool.lease(target.adapter, self._config.lease_timeout_s)
            connection: Connection | None = None
            try:
                connection = await self._upstream.connect(lease.address)
                head = await connection.request(message.encode(lease.ticket))
                first = await connection.read()
                if head.status == STALE_STATUS:
                    raise UpstreamError("the lease had ended")
                if not message.stream:
                    parts = [first]
                    while more := await connection.read():
                        parts.append(more)
                    first = b"".join(parts)
                return _Exchange(lease, connection, head, first)
            except UpstreamError as exc:
                lease.abandon()
                if connection is not None:
                    connection.close()
                if attempt == ATTEMPTS:
                    name = target.served.config.name
                    raise PoolUnavailable(f"the replicas of {name!r} fail: {exc}") from exc
                self._metrics.retries.inc()
            except BaseException:
                lease.abandon()
                if connection is not None:
                    connection.close()
                raise
        raise AssertionError("unreachable")

    async def _rest(self, exchange: _Exchange) -> bytes:
        """The whole body of an answer; connection and lease are free afterwards."""
        parts = [exchange.first]
        try:
            while more := await exchange.connection.read():
                parts.append(more)
        except UpstreamError:
            exchange.lease.abandon()
        else:
            self._upstream.release(exchange.lease.address, exchange.connection)
            exchange.lease.release()
        return b"".join(parts)

    async def _answer(self, path: str, exchange: _Exchange, send: Send, added: Headers) -> None:
        connection, chunk = exchange.connection, exchange.first
        headers = [(n, v) for n, v in exchange.head.headers if n in _PASSED_HEADERS] + added
        try:
            await send(
                {"type": "http.response.start", "status": exchange.head.status, "headers": headers}
            )
            while chunk:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                chunk = await connection.read()
        except UpstreamError as exc:
            exchange.lease.abandon()
            error = ApiError(503, f"the answer broke off: {exc}", code="replica_lost")
            event = b"event: error\ndata: " + error.body(path) + b"\n\n"
            await send({"type": "http.response.body", "body": event, "more_body": True})
        except BaseException:
            exchange.lease.abandon()
            connection.close()
            raise
        else:
            self._upstream.release(exchange.lease.address, connection)
            exchange.lease.release()
        await send({"type": "http.response.body", "body": b""})


@dataclass(frozen=True)
class _Message:
    """A request to a replica."""

    path: str
    request_id: str
    body: bytes
    stream: bool

    def encode(self, ticket: str) -> bytes:
        """HTTP/1.1 bytes, with the lease's ticket."""
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: engine\r\ncontent-type: application/json\r\n"
            f"x-request-id: {self.request_id}\r\nx-corral-ticket: {ticket}\r\n"
            f"content-length: {len(self.body)}\r\n\r\n"
        )
        return head.encode("latin-1") + self.body


_PASSED_HEADERS = frozenset({b"content-type", b"content-length", b"retry-after"})
_CLOSE = [(b"connection", b"close")]
"""After an answer to a body that was not read to its end."""
