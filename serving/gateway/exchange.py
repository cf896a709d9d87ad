"""One request to one replica over a lease: sent, retried while that is free, read, ended."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import msgspec

from serving.errors import PoolUnavailable
from serving.gateway.directory import Target
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.pool import Lease
from serving.gateway.upstream import Connection, ResponseHead, Upstream, UpstreamError
from serving.leases import STALE_STATUS, USAGE_PATH
from serving.usage import TokenUsage

_log = logging.getLogger(__name__)

ATTEMPTS = 3
"""Tries at a replica before any byte of the answer was sent. Generation has no side effects."""
USAGE_TIMEOUT_S = 10.0
"""How long an engine may take to notice that the client has left."""
_decode_usage = msgspec.json.Decoder(TokenUsage).decode


@dataclass(frozen=True)
class Message:
    """A request as a replica gets it."""

    path: str
    request_id: str
    body: bytes
    stream: bool
    cache_salt: str = ""

    def encode(self, ticket: str) -> bytes:
        """HTTP/1.1 bytes, with the lease's ticket."""
        salt = f"x-corral-cache-salt: {self.cache_salt}\r\n" if self.cache_salt else ""
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: engine\r\ncontent-type: application/json\r\n"
            f"x-request-id: {self.request_id}\r\nx-corral-ticket: {ticket}\r\n{salt}"
            f"content-length: {len(self.body)}\r\n\r\n"
        )
        return head.encode("latin-1") + self.body


@dataclass
class Exchange:
    """One attempt: the lease, the connection it was spent on, and what has come back so far.

    `first` is the whole body of a plain answer, and the first bytes of a streamed one.
    """

    lease: Lease
    connection: Connection
    head: ResponseHead
    first: bytes


class CutOff(BaseException):
    """The client left while a replica worked: carries the lease, on which usage can be asked.

    `cause` is what ended the request, raised again by whoever has dealt with the lease.
    """

    def __init__(self, lease: Lease, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.lease = lease
        self.cause = cause


class Exchanger:
    """Connections of one gateway to all replicas."""

    def __init__(self, lease_timeout_s: float, metrics: GatewayMetrics) -> None:
        self._lease_timeout_s = lease_timeout_s
        self._metrics = metrics
        self._upstream = Upstream()

    async def start(self, message: Message, target: Target) -> Exchange:
        """Lease, send, and await the answer's start; on a broken replica, with another lease.

        Raises CorralError, and CutOff when cancelled while a replica worked.
        """
        pool = target.served.pool
        for attempt in range(1, ATTEMPTS + 1):
            lease = await pool.lease(target.adapter, self._lease_timeout_s)
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
                return Exchange(lease, connection, head, first)
            except UpstreamError as exc:
                lease.abandon()
                if connection is not None:
                    connection.close()
                if attempt == ATTEMPTS:
                    name = target.served.config.name
                    raise PoolUnavailable(f"the replicas of {name!r} fail: {exc}") from exc
                self._metrics.retries.inc()
            except BaseException as exc:
                if connection is None:
                    lease.abandon()
                    raise
                connection.close()
                raise CutOff(lease, exc) from exc
        raise AssertionError("unreachable")

    async def rest(self, exchange: Exchange) -> bytes:
        """The whole body of an answer; connection and lease are free afterwards."""
        parts = [exchange.first]
        try:
            while more := await exchange.connection.read():
                parts.append(more)
        except UpstreamError:
            exchange.lease.abandon()
        else:
            self.free(exchange)
            exchange.lease.release()
        return b"".join(parts)

    def free(self, exchange: Exchange) -> None:
        """The answer was read to its end: keep the connection. The lease is still held."""
        self._upstream.release(exchange.lease.address, exchange.connection)

    async def used(self, lease: Lease) -> TokenUsage | None:
        """What the last request on the lease has used, once it has ended; None if unknown."""
        request = (
            f"GET {USAGE_PATH} HTTP/1.1\r\nhost: engine\r\nx-corral-ticket: {lease.ticket}\r\n\r\n"
        )
        try:
            async with asyncio.timeout(USAGE_TIMEOUT_S):
                connection = await self._upstream.connect(lease.address)
                try:
                    head = await connection.request(request.encode("latin-1"))
                    parts = []
                    while part := await connection.read():
                        parts.append(part)
                finally:
                    self._upstream.release(lease.address, connection)
            return _decode_usage(b"".join(parts)) if head.status == 200 else None
        except (UpstreamError, TimeoutError, msgspec.MsgspecError) as exc:
            _log.warning("no usage for a request that was cut off: %s", exc)
            return None
