"""The token path: one request to one replica, bytes back as they come.

Everything that costs is done once a request; a chunk costs one read and one send.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from serving.config import GatewayConfig
from serving.errors import CorralError
from serving.gateway.access import check_endpoint
from serving.gateway.charge import UNBILLED_PATHS, Charge, Outcome, free_charge
from serving.gateway.counting import prompt_counter
from serving.gateway.directory import Directory
from serving.gateway.door import REQUEST_ID, RESPONSE_HEADERS, Headers, with_headers
from serving.gateway.errors import ApiError, from_corral, from_engine
from serving.gateway.estimate import upper_bound
from serving.gateway.exchange import CutOff, Exchange, Exchanger, Message
from serving.gateway.gate import Gate
from serving.gateway.grounder import Grounder
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.pool import Lease
from serving.gateway.request import EngineRequest, RequestReader
from serving.gateway.upstream import UpstreamError
from serving.gateway.usage import (
    TAIL_PIECES,
    USAGE_CHUNK,
    usage_of_answer,
    usage_of_stream,
    without_usage_chunk,
)
from serving.store.identity import Identity
from serving.usage import TokenUsage

if TYPE_CHECKING:
    from serving.retrieval.grounded import Grounding

_log = logging.getLogger(__name__)


class Proxy:
    """ASGI endpoint of every route that an engine answers."""

    def __init__(
        self,
        config: GatewayConfig,
        directory: Directory,
        metrics: GatewayMetrics,
        gate: Gate,
        grounder: Grounder | None = None,
    ) -> None:
        self._config = config
        self._max_body_bytes = int(config.max_body_mib * 2**20)
        self._directory = directory
        self._metrics = metrics
        self._gate = gate
        self._grounder = grounder
        self._exchanger = Exchanger(config.lease_timeout_s, metrics)
        self._reader = RequestReader(config.limits)
        self._settling: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        request_id: str = scope[REQUEST_ID]
        headers: Headers = scope[RESPONSE_HEADERS]
        started = time.perf_counter()
        call = _Call(path, request_id, started)
        self._metrics.in_flight.inc()
        try:
            identity = await self._gate.identify(scope["headers"])
            check_endpoint(identity, path)
            body = await self._read_body(scope, receive)
            if self._config.log_content:
                _log.warning("request %s to %s: %r", request_id, path, body)
            request = self._reader.read(path, body)
            if self._grounder is not None:
                call.grounding = await self._grounder.ground(request, identity)
            exchange = await self._engage(call, request, identity)
            headers += call.charge.headers
            await self._answer(call, request, exchange, send, headers)
        except ApiError as exc:
            call.status = exc.status
            await exc.send(path, with_headers(send, headers))
        except CorralError as exc:
            error = from_corral(exc)
            call.status = error.status
            await error.send(path, with_headers(send, headers))
        except CutOff as exc:
            call.status = 499
            self._settle_later(call, exc.lease, "interrupted")
            raise exc.cause from None
        except asyncio.CancelledError:
            call.status = 499
            raise
        except Exception:
            _log.exception("request %s to %s failed", request_id, path)
            if call.begun:
                raise  # the head may be on its way
            error = ApiError(500, f"internal error in request {request_id}", code="internal_error")
            await error.send(path, with_headers(send, headers))
        finally:
            call.charge.release()
            self._metrics.in_flight.dec()
            seconds = time.perf_counter() - started
            self._metrics.observe(path, call.model, call.status, seconds)

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

    async def _engage(self, call: _Call, request: EngineRequest, identity: Identity) -> Exchange:
        """Check, charge, and have a replica begin its answer. Raises ApiError, CorralError."""
        target = self._directory.resolve(request.model, call.path, identity.may_use)
        call.model = target.served.config.name
        context = target.served.context_tokens
        call.charge = await self._gate.charge(
            identity,
            target,
            call.charge,
            bound=lambda: upper_bound(call.path, request.fields, request.size, context),
            count=prompt_counter(self._exchanger, request, target, call.request_id),
        )
        if target.adapter is not None:
            request.set("model", target.adapter.engine_name)
        if call.charge.open:
            request.include_usage()
        body = request.encode()
        message = Message(call.path, call.request_id, body, request.stream, identity.cache_salt)
        exchange = await self._exchanger.start(message, target)
        call.status = exchange.head.status
        if call.status >= 400:
            raise from_engine(call.status, await self._exchanger.rest(exchange))
        call.charge.first_byte = time.perf_counter()
        self._metrics.first_byte(call.model, call.charge.first_byte - call.started)
        return exchange

    async def _answer(
        self, call: _Call, request: EngineRequest, exchange: Exchange, send: Send, added: Headers
    ) -> None:
        """Pass the answer on, then close the books."""
        head = [(n, v) for n, v in exchange.head.headers if n in _PASSED_HEADERS] + added
        rewrite = await _grounded(call, request, exchange, head)
        hide_usage = call.charge.open and request.usage_was_added
        tail: deque[bytes] = deque(maxlen=TAIL_PIECES)
        read, piece = exchange.connection.read, exchange.first
        call.begun = True
        try:
            await send({"type": "http.response.start", "status": call.status, "headers": head})
            while piece:
                tail.append(piece)
                if hide_usage:
                    piece = await _hide_usage(exchange, tail)
                if rewrite is not None:
                    piece = rewrite(piece)
                if piece:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                piece = await read()
        except UpstreamError as exc:
            exchange.lease.abandon()
            call.charge.settle(TokenUsage(), "failed")
            error = ApiError(503, f"the answer broke off: {exc}", code="replica_lost")
            event = b"event: error\ndata: " + error.body(call.path) + b"\n\n"
            await send({"type": "http.response.body", "body": event, "more_body": True})
        except BaseException as exc:
            exchange.connection.close()
            raise CutOff(exchange.lease, exc) from exc
        else:
            self._close(call, exchange, usage_of_stream(tail) if request.stream else None)
        await send({"type": "http.response.body", "body": b""})

    def _close(self, call: _Call, exchange: Exchange, usage: TokenUsage | None) -> None:
        """The answer was read to its end: free connection and lease, and book what it says."""
        self._exchanger.free(exchange)
        if call.charge.open and call.path not in UNBILLED_PATHS:
            usage = usage or usage_of_answer(exchange.first)
            if usage is None:
                self._settle_later(call, exchange.lease, "complete")
                return
        call.charge.settle(usage or TokenUsage(), "complete")
        exchange.lease.release()

    def _settle_later(self, call: _Call, lease: Lease, outcome: Outcome) -> None:
        """Ask the replica what was used, beside the request, and book it."""
        charge, call.charge = call.charge, free_charge(call.path, call.request_id)
        if not charge.open:
            lease.abandon()
            return
        task = asyncio.ensure_future(self._settle(charge, lease, outcome))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle(self, charge: Charge, lease: Lease, outcome: Outcome) -> None:
        try:
            usage = await self._exchanger.used(lease)
        finally:
            lease.abandon()
        charge.settle(usage or TokenUsage(), outcome if usage else "failed")


async def _hide_usage(exchange: Exchange, tail: deque[bytes]) -> bytes:
    """The last piece of `tail`, made whole events, less the usage the client did not ask for."""
    while not tail[-1].endswith(b"\n\n") and (more := await exchange.connection.read()):
        tail[-1] += more
    return without_usage_chunk(tail[-1]) if USAGE_CHUNK in tail[-1] else tail[-1]


async def _grounded(
    call: _Call, request: EngineRequest, exchange: Exchange, head: Headers
) -> Callable[[bytes], bytes] | None:
    """What rewrites each piece of a grounded stream; a plain answer is rewritten at once."""
    if call.grounding is None:
        return None
    head[:] = [(name, value) for name, value in head if name != b"content-length"]
    if request.stream:
        from serving.retrieval.grounded import CitedEvents

        return CitedEvents(call.grounding).feed
    exchange.first = await asyncio.to_thread(call.grounding.whole, exchange.first)
    head.append((b"content-length", str(len(exchange.first)).encode()))
    return None


@dataclass
class _Call:
    """What has become of one request."""

    path: str
    request_id: str
    started: float
    model: str = ""
    status: int = 500
    begun: bool = False
    """Whether the answer's head is on its way to the client."""
    grounding: Grounding | None = None
    """The passages that it is answered from, if it asked for a search."""
    charge: Charge = field(init=False)

    def __post_init__(self) -> None:
        self.charge = free_charge(self.path, self.request_id)


_PASSED_HEADERS = frozenset({b"content-type", b"content-length", b"retry-after"})
_CLOSE = [(b"connection", b"close")]
"""After an answer to a body that was not read to its end."""
