"""Tickets and leases: one request at a time, none without a ticket, none for ever."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from functools import partial

import pytest
from starlette.types import Message, Receive, Scope, Send

from serving import leases
from serving.leases import STALE_STATUS, USAGE_PATH, LeaseBook, TicketDoor
from serving.request_scope import SCOPE
from serving.usage import TokenUsage

Handler = Callable[[], Awaitable[None]]
WAIT_S = 10.0


class Door:
    """A door before an application that answers 200 after `handler`."""

    def __init__(self, handler: Handler | None = None) -> None:
        self.book = LeaseBook()
        self.scopes: list[str] = []
        self._handler = handler
        self._door = TicketDoor(self._app, self.book)

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope["type"])
        if self._handler is not None:
            await self._handler()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def ask(self, *tickets: str, kind: str = "http", path: str = "/") -> list[Message]:
        """What is sent for a request with these tickets in its head."""
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            raise AssertionError("nothing to receive")

        headers = [(b"x-corral-ticket", ticket.encode()) for ticket in tickets]
        scope = {"type": kind, "path": path, "headers": [(b"host", b"engine"), *headers]}
        await self._door(scope, receive, send)
        return sent

    async def status(self, *tickets: str) -> int:
        return int((await self.ask(*tickets))[0]["status"])


async def test_a_ticket_opens_the_door_again_and_again() -> None:
    door = Door()
    lease = door.book.open(None)
    assert [await door.status(lease.ticket) for _ in range(3)] == [200, 200, 200]
    assert door.book.running == 0


@pytest.mark.parametrize("tickets", [(), ("",), ("wrong",), ("wrong", "wrong")])
async def test_without_a_valid_ticket_nothing_is_done(tickets: tuple[str, ...]) -> None:
    door = Door()
    door.book.open(None)
    assert await door.status(*tickets) == STALE_STATUS
    assert door.scopes == []


async def test_a_second_ticket_in_the_head_is_not_tried() -> None:
    door = Door()
    lease = door.book.open(None)
    assert await door.status("wrong", lease.ticket) == STALE_STATUS


async def test_the_door_tells_what_the_last_request_has_used() -> None:
    counts = [TokenUsage(7, 2, 1), TokenUsage(0, 0, 3)]

    async def two_sequences() -> None:
        scope = SCOPE.get()
        assert scope is not None
        for count in counts:
            scope.track(partial(replace, count))

    door = Door(two_sequences)
    lease = door.book.open(None)
    await door.ask(lease.ticket)
    for _ in range(2):
        answer = await door.ask(lease.ticket, path=USAGE_PATH)
        assert json.loads(answer[1]["body"]) == asdict(TokenUsage(7, 2, 4))
    counts.pop()
    await door.ask(lease.ticket)
    answer = await door.ask(lease.ticket, path=USAGE_PATH)
    assert json.loads(answer[1]["body"]) == asdict(TokenUsage(7, 2, 1))
    assert await door.ask("wrong", path=USAGE_PATH) == await door.ask("wrong")


async def test_websockets_are_turned_away() -> None:
    door = Door()
    lease = door.book.open(None)
    assert await door.ask(lease.ticket, kind="websocket") == [
        {"type": "websocket.close", "code": 1008}
    ]
    assert door.scopes == []


async def test_lifespan_needs_no_ticket() -> None:
    door = Door()
    await door.ask(kind="lifespan")
    assert door.scopes == ["lifespan"]


async def test_tickets_differ_and_cannot_be_guessed() -> None:
    book = LeaseBook()
    tickets = {book.open(None).ticket for _ in range(100)}
    assert len(tickets) == 100
    assert min(map(len, tickets)) >= 24


async def test_one_request_at_a_time_runs_on_a_lease() -> None:
    running, most = 0, 0

    async def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    door = Door(work)
    lease = door.book.open(None)
    statuses = await asyncio.gather(*(door.status(lease.ticket) for _ in range(4)))
    assert statuses == [200] * 4
    assert most == 1


async def test_leases_run_beside_each_other() -> None:
    both = asyncio.Barrier(2)

    async def meet() -> None:
        await both.wait()

    door = Door(meet)
    tickets = [door.book.open(None).ticket for _ in range(2)]
    async with asyncio.timeout(WAIT_S):
        assert await asyncio.gather(*map(door.status, tickets)) == [200, 200]


async def test_a_failing_request_frees_its_lease() -> None:
    async def fail() -> None:
        raise RuntimeError("boom")

    door = Door(fail)
    lease = door.book.open(None)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="boom"):
            await door.status(lease.ticket)
    assert door.book.running == 0


async def test_an_idle_lease_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "IDLE_S", 0.0)
    door = Door()
    lease = door.book.open(None)
    assert await door.status(lease.ticket) == 200
    async with asyncio.timeout(WAIT_S):
        await lease.closed.wait()
    assert await door.status(lease.ticket) == STALE_STATUS


async def test_an_unclaimed_lease_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "FIRST_CLAIM_S", 0.0)
    door = Door()
    lease = door.book.open(None)
    async with asyncio.timeout(WAIT_S):
        await lease.closed.wait()
    assert await door.status(lease.ticket) == STALE_STATUS


async def test_a_new_lease_outlives_several_sweeps_unclaimed() -> None:
    door = Door()
    lease = door.book.open(None)
    await asyncio.sleep(3 * leases.SWEEP_S)
    assert await door.status(lease.ticket) == 200


async def test_a_busy_lease_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "FIRST_CLAIM_S", 0.0)
    done = asyncio.Event()

    async def work() -> None:
        await done.wait()

    door = Door(work)
    lease = door.book.open(None)
    request = asyncio.ensure_future(door.status(lease.ticket))
    await asyncio.sleep(3 * leases.SWEEP_S)
    assert door.book.running == 1
    assert not lease.closed.is_set()
    done.set()
    assert await request == 200


async def test_sweeping_goes_on_for_leases_opened_after_the_last_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leases, "FIRST_CLAIM_S", 0.0)
    book = LeaseBook()
    async with asyncio.timeout(WAIT_S):
        for _ in range(2):
            await book.open(None).closed.wait()


async def test_closing_a_lease_aborts_what_runs_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "CANCEL_AFTER_S", 0.05)
    aborted = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(WAIT_S)
        except asyncio.CancelledError:
            aborted.set()
            raise

    door = Door(work)
    lease = door.book.open(None)
    request = asyncio.ensure_future(door.status(lease.ticket))
    await asyncio.sleep(0)
    door.book.close(lease, asyncio.get_running_loop())
    with pytest.raises(asyncio.CancelledError):
        await request
    assert aborted.is_set()
    assert door.book.running == 0
    assert await door.status(lease.ticket) == STALE_STATUS


async def test_who_waits_for_a_lease_that_is_closed_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leases, "CANCEL_AFTER_S", 0.05)
    done = asyncio.Event()

    async def work() -> None:
        await done.wait()

    door = Door(work)
    lease = door.book.open(None)
    first = asyncio.ensure_future(door.status(lease.ticket))
    await asyncio.sleep(0)
    replay = asyncio.ensure_future(door.status(lease.ticket))
    await asyncio.sleep(0.01)
    door.book.close(lease, asyncio.get_running_loop())
    assert await replay == STALE_STATUS
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_ending_an_adapters_idle_leases_leaves_the_busy_ones() -> None:
    done = asyncio.Event()

    async def work() -> None:
        await done.wait()

    door = Door(work)
    busy, idle, other = (door.book.open(name) for name in ("a", "a", "b"))
    request = asyncio.ensure_future(door.status(busy.ticket))
    await asyncio.sleep(0)
    assert door.book.end_idle("a") == 1
    assert (busy.closed.is_set(), idle.closed.is_set(), other.closed.is_set()) == (
        False,
        True,
        False,
    )
    done.set()
    assert await request == 200
    assert await door.status(idle.ticket) == STALE_STATUS
    assert door.book.end_idle("a") == 0
