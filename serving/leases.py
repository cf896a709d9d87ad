"""Leases on the replica's side: tickets, and the door that asks for one.

`LeaseBook` lives on two event loops. Serve's loop issues and awaits leases; the
engine's loop claims them as HTTP requests arrive. Knows neither Ray nor vLLM.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Receive, Scope, Send

TICKET_HEADER = b"x-corral-ticket"
CLAIM_TIMEOUT_S = 15.0
_REFUSED = (
    b'{"error":{"message":"no valid ticket","type":"permission_error","param":null,"code":403}}'
)


@dataclass(eq=False)
class Lease:
    """The right to send one HTTP request to this replica."""

    ticket: str
    adapter: str | None
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    request: asyncio.Task[None] | None = None


class LeaseBook:
    """Open leases by ticket. Created, opened and closed on the replica's own loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._unclaimed: dict[str, Lease] = {}
        self._claimed: set[Lease] = set()

    def open(self, adapter: str | None) -> Lease:
        """A new lease; it closes itself when nobody claims it within CLAIM_TIMEOUT_S."""
        lease = Lease(ticket=secrets.token_urlsafe(18), adapter=adapter)
        self._unclaimed[lease.ticket] = lease
        self._loop.call_later(CLAIM_TIMEOUT_S, self._expire, lease)
        return lease

    def close(self, lease: Lease, engine_loop: asyncio.AbstractEventLoop) -> None:
        """Forget the lease and cancel its request if that still runs."""
        self._unclaimed.pop(lease.ticket, None)
        if lease.request is not None and lease in self._claimed:
            engine_loop.call_soon_threadsafe(lease.request.cancel)

    def in_use(self, adapter: str) -> int:
        """Open leases of this adapter, claimed or not."""
        open_leases = [*self._unclaimed.values(), *self._claimed]
        return sum(lease.adapter == adapter for lease in open_leases)

    @property
    def running(self) -> int:
        """Requests being answered now."""
        return len(self._claimed)

    def claim(self, ticket: str) -> Lease | None:
        """Called on the engine's loop: the lease of this ticket, which is used up by it."""
        lease = self._unclaimed.pop(ticket, None)
        if lease is not None:
            lease.request = asyncio.current_task()
            self._claimed.add(lease)
        return lease

    def release(self, lease: Lease) -> None:
        """Called on the engine's loop when the response has ended or was aborted."""
        self._claimed.discard(lease)
        self._loop.call_soon_threadsafe(lease.closed.set)

    def _expire(self, lease: Lease) -> None:
        if self._unclaimed.pop(lease.ticket, None) is not None:
            lease.closed.set()


class TicketDoor:
    """ASGI middleware: lets a request in for a ticket, and ends its lease afterwards."""

    def __init__(self, app: ASGIApp, book: LeaseBook) -> None:
        self._app = app
        self._book = book

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        lease = None
        if scope["type"] == "http":
            for name, value in scope["headers"]:
                if name == TICKET_HEADER:
                    lease = self._book.claim(value.decode("latin-1"))
                    break
        if lease is None:
            await _refuse(scope, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._book.release(lease)


async def _refuse(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": _REFUSED})
