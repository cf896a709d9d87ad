"""The writer thread: one transaction for all that waits, nothing lost at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cached_property

import pytest
from sqlalchemy import func, select

from serving.store import tables
from serving.store.audit import SYSTEM
from serving.store.database import Store
from serving.store.errors import StoreUnavailable
from serving.store.ledger import Item, Ledger
from serving.store.ledger_types import (
    Granted,
    Outcome,
    Payer,
    Refused,
    Reserve,
    Settle,
    Tokens,
)  # fmt: skip
from serving.store.ledger_writer import LedgerWriter
from serving.store.limits import LimitBook, Limits, LimitStore
from tests.unit.store.test_ledger import PRICES, check_sums

PAYER = Payer("default", "key_1", "m")
COST = Tokens(input=10)


def writer_of(store: Store, kind: type[Ledger] = Ledger) -> LedgerWriter:
    ledger = kind(store, PRICES, LimitBook(store, 60), f"gateway-{id(store)}")
    writer = LedgerWriter(ledger, 30)
    writer.start()
    return writer


def held(store: Store) -> int:
    with store.read() as connection:
        return int(
            connection.execute(select(func.count()).select_from(tables.reservations)).scalar_one()
        )


def booked(store: Store) -> int:
    with store.read() as connection:
        return int(connection.execute(select(func.count()).select_from(tables.usage)).scalar_one())


async def test_a_thousand_at_once_get_what_there_is_and_no_more(store: Store) -> None:
    LimitStore(store).set("tenant:default", Limits(nusd_per_month=1_000_000), SYSTEM)
    writer = writer_of(store)
    asks = [writer.reserve(Reserve(PAYER, COST)) for _ in range(1000)]
    outcomes = await asyncio.gather(*asks)
    granted = [o for o in outcomes if isinstance(o, Granted)]
    assert len(granted) == 100
    for outcome in granted:
        writer.settle(Settle(PAYER, COST, "/v1/x", reservation=outcome.reservation))
    writer.stop()
    assert (held(store), booked(store), writer.lost) == (0, 100, 0)
    check_sums(store)


async def test_stopping_writes_what_waits_and_refuses_what_comes(store: Store) -> None:
    writer = writer_of(store)
    for _ in range(700):
        writer.settle(Settle(PAYER, COST, "/v1/x"))
    writer.stop()
    assert booked(store) == 700
    with pytest.raises(StoreUnavailable, match="closed"):
        await writer.reserve(Reserve(PAYER, COST))


async def test_a_request_cancelled_while_it_waits_holds_nothing(store: Store) -> None:
    LimitStore(store).set("tenant:default", Limits(parallel_requests=1), SYSTEM)
    writer = writer_of(store)
    waiting = asyncio.ensure_future(writer.reserve(Reserve(PAYER, COST)))
    await asyncio.sleep(0)
    waiting.cancel()
    async with asyncio.timeout(10):
        while not isinstance(outcome := await writer.reserve(Reserve(PAYER, COST)), Granted):
            assert isinstance(outcome, Refused)
            await asyncio.sleep(0.002)
    writer.stop()
    assert held(store) == 1


class Flaky(Ledger):
    """Loses the database for a while: before the work, or after it was committed."""

    committed_first = True

    def apply(self, items: Sequence[Item], *, again: bool = False) -> list[Outcome]:
        kinds = {type(item) for item in items} - self.failed
        if kinds & {Settle, Reserve}:
            self.failed |= kinds
            if self.committed_first:
                super().apply(items, again=again)
            raise StoreUnavailable("gone")
        return super().apply(items, again=again)

    @cached_property
    def failed(self) -> set[type[Item]]:
        """Kinds of items that have met the failure."""
        return set()


class FlakyBefore(Flaky):
    """Fails before anything is written."""

    committed_first = False


@pytest.mark.parametrize("kind", [Flaky, FlakyBefore])
async def test_a_database_that_comes_back_has_everything_once(
    store: Store, kind: type[Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.store.ledger_writer.RETRY_S", 0.01)
    LimitStore(store).set("tenant:default", Limits(nusd_per_day=10**9), SYSTEM)
    writer = writer_of(store, kind)
    writer.settle(Settle(PAYER, COST, "/v1/x"))
    with pytest.raises(StoreUnavailable, match="gone"):
        await writer.reserve(Reserve(PAYER, COST))
    async with asyncio.timeout(10):
        while writer.pending:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    granted = await writer.reserve(Reserve(PAYER, COST))
    assert isinstance(granted, Granted)
    writer.stop()
    assert (held(store), booked(store), writer.lost) == (1, 1, 0)
    check_sums(store)


async def test_one_bad_item_takes_no_other_along(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    writer = writer_of(store)
    good, bad = Settle(PAYER, COST, "/v1/x"), Settle(PAYER, Tokens(input=2**63), "/v1/x")
    for item in (good, bad, Settle(PAYER, COST, "/v1/y")):
        writer.settle(item)
    writer.stop()
    assert (booked(store), writer.lost) == (2, 1)
    assert "not booked" in caplog.text
