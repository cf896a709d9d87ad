"""Leases on the replica's side: tickets, and the door that asks for one.

A lease is the right to have one request at a time on this replica. It outlives its
request by a moment, so that a busy gateway need not ask Serve anew for every request;
left idle, it ends by itself, so that Serve's count of ongoing requests stays true.

`LeaseBook` is used from two event loops: Serve's grants and awaits leases, the
engine's claims them as HTTP requests arrive. Knows neither Ray nor vLLM.
"""

from __future__ import annotations

import asyncio
import functools
import json
import secrets
import threading
import time
from dataclasses import asdict, dataclass, field

from starlette.types import ASGIApp, Receive, Scope, Send

from serving.request_scope import SCOPE, RequestScope
from serving.usage import TokenUsage

TICKET_HEADER = b"x-corral-ticket"
SALT_HEADER = b"x-corral-cache-salt"
IDLE_S = 0.5
"""How long a lease lives without a request. Gateways let go of it earlier."""
FIRST_CLAIM_S = 10.0
"""How long a new lease waits for its first request."""
SWEEP_S = 0.1
CANCEL_AFTER_S = 5.0
USAGE_PATH = "/corral/usage"
"""Answered by the door with what the last request of the ticket has used, once it has ended."""
STALE_STATUS = 409
"""Answer to a ticket that is not valid (any more): nothing was done, ask for a new lease."""


@dataclass(eq=False)
class Lease:
    """An open lease. `busy` while a request runs on it."""

    ticket: str
    adapter: str | None
    ends_at: float
    """When it ends unless claimed, on the monotonic clock."""
    busy: bool = False
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    request: asyncio.Task[None] | None = None
    scope: RequestScope = field(default_factory=RequestScope)
    """Of the request that runs, or ran last."""


class LeaseBook:
    """Open leases by ticket. Created on Serve's loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._leases: dict[str, Lease] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self.closed = False
        """While it is, no request is let in: whoever asks is sent for a new lease."""

    def open(self, adapter: str | None) -> Lease:
        """Grant a lease."""
        ends_at = time.monotonic() + FIRST_CLAIM_S
        lease = Lease(secrets.token_urlsafe(18), adapter, ends_at)
        self._leases[lease.ticket] = lease
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        return lease

    def close(self, lease: Lease, engine_loop: asyncio.AbstractEventLoop) -> None:
        """End the lease. A request that still runs on it has CANCEL_AFTER_S to notice by itself.

        The gateway has closed its connection. Engines abort their work when they hear of
        that; cancelled before, vLLM leaves a plain request's generation behind.
        """
        with self._lock:
            self._leases.pop(lease.ticket, None)
            request = lease.request if lease.busy else None
        if request is not None:
            later = functools.partial(engine_loop.call_later, CANCEL_AFTER_S, request.cancel)
            engine_loop.call_soon_threadsafe(later)

    def end_idle(self, adapter: str) -> int:
        """End the adapter's idle leases. Returns how many requests still run on others."""
        with self._lock:
            mine = [lease for lease in self._leases.values() if lease.adapter == adapter]
            idle = [lease for lease in mine if not lease.busy]
            for lease in idle:
                del self._leases[lease.ticket]
        for lease in idle:
            lease.closed.set()
        return len(mine) - len(idle)

    @property
    def running(self) -> int:
        """Requests being answered now."""
        return sum(lease.busy for lease in list(self._leases.values()))

    async def claim(self, ticket: str) -> Lease | None:
        """On the engine's loop: the lease of this ticket, now busy; None when it has ended.

        The request before may have sent its last byte and still be leaving: it is waited for.
        """
        while True:
            with self._lock:
                lease = None if self.closed else self._leases.get(ticket)
                if lease is None:
                    return None
                if not lease.busy:
                    lease.busy = True
                    lease.request = asyncio.current_task()
                    return lease
            await asyncio.sleep(0.001)

    def release(self, lease: Lease) -> None:
        """On the engine's loop: the response has ended or was aborted."""
        lease.request = None
        lease.ends_at = time.monotonic() + IDLE_S
        lease.busy = False

    def _sweep(self) -> None:
        now = time.monotonic()
        with self._lock:
            over = [e for e in self._leases.values() if not e.busy and e.ends_at < now]
            for lease in over:
                del self._leases[lease.ticket]
            again = bool(self._leases)
        for lease in over:
            lease.closed.set()
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep) if again else None


class TicketDoor:
    """ASGI middleware: lets a request in for a ticket, and frees its lease afterwards."""

    def __init__(self, app: ASGIApp, book: LeaseBook) -> None:
        self._app = app
        self._book = book

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        lease = None
        headers: dict[bytes, bytes] = {}
        if scope["type"] == "http":
            headers = dict(reversed(scope["headers"]))  # the first of several counts
            ticket = headers.get(TICKET_HEADER)
            if ticket is not None:
                lease = await self._book.claim(ticket.decode("latin-1"))
        if lease is None:
            await _refuse(scope, send)
            return
        try:
            if scope["path"] == USAGE_PATH:
                await _tell(lease.scope.used(), send)
                return
            salt = headers.get(SALT_HEADER)
            lease.scope = RequestScope(cache_salt=salt.decode("latin-1") if salt else None)
            SCOPE.set(lease.scope)
            await self._app(scope, receive, send)
        finally:
            self._book.release(lease)


async def _tell(usage: TokenUsage, send: Send) -> None:
    body = json.dumps(asdict(usage)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _refuse(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": STALE_STATUS, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
