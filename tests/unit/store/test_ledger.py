"""The ledger's sums: reserved before, settled after, exact across days and repetitions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select

from serving.store import tables
from serving.store.audit import SYSTEM
from serving.store.config import PriceConfig
from serving.store.database import Store
from serving.store.keys import KeySpec, add_key
from serving.store.ledger import Ledger
from serving.store.ledger_types import (
    Granted,
    Outcome,
    Payer,
    Refused,
    Release,
    Reserve,
    Settle,
    Tokens,
)  # fmt: skip
from serving.store.limits import LimitBook, Limits, LimitStore
from serving.store.prices import PriceBook
from serving.store.secret import new_key

PAYER = Payer("default", "key_1", "m")
PRICES = PriceBook({
    "m": PriceConfig(input="1", cached_input="0.5", output="2", embedding="0.25"),
    "m:big": PriceConfig(output="10"),
    "g": PriceConfig(gpu_second="0.001"),
})  # fmt: skip
NOON = int(datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()) * 1_000_000


class Clocked:
    """A ledger whose time stands still until it is moved."""

    def __init__(self, store: Store, gateway_id: str = "gateway-1") -> None:
        self.now_us = NOON
        store.now_us = lambda: self.now_us  # type: ignore[method-assign]
        self.store = store
        self.ledger = Ledger(store, PRICES, LimitBook(store, 3600), gateway_id, (50, 100))
        self.ledger.renew(30)
        with store.write() as connection:
            add_key(connection, store, KeySpec("default"), new_key(), lineage="key_1")

    def pass_(self, seconds: float) -> None:
        self.now_us += int(seconds * 1e6)

    def limit(self, scope: str, **limits: int) -> None:
        LimitStore(self.store).set(scope, Limits(**limits), SYSTEM)
        self.ledger._limits._until_s = 0

    def ask(self, tokens: Tokens, payer: Payer = PAYER) -> Granted | Refused:
        outcome = self.ledger.apply([Reserve(payer, tokens)])[0]
        assert outcome is not None
        return outcome

    def hold(self, tokens: Tokens, payer: Payer = PAYER) -> str:
        outcome = self.ask(tokens, payer)
        assert isinstance(outcome, Granted), outcome
        assert outcome.reservation is not None
        return outcome.reservation

    def refused(self, tokens: Tokens, payer: Payer = PAYER) -> Refused:
        outcome = self.ask(tokens, payer)
        assert isinstance(outcome, Refused), outcome
        return outcome

    def settle(self, reservation: str | None, tokens: Tokens, payer: Payer = PAYER) -> Outcome:
        done = Settle(payer, tokens, "/v1/chat/completions", reservation=reservation)
        return self.ledger.apply([done])[0]

    def window(self, id: str) -> tuple[int, int, int, int]:
        """Spent and held nano-dollars, spent and held tokens."""
        w = tables.windows.c
        query = select(w.spent_nusd, w.held_nusd, w.spent_tokens, w.held_tokens).where(w.id == id)
        with self.store.read() as connection:
            row = connection.execute(query).one_or_none()
        return (0, 0, 0, 0) if row is None else (row[0], row[1], row[2], row[3])

    def meter(self, scope: str) -> int:
        """Requests in parallel."""
        query = select(tables.meters.c.parallel).where(tables.meters.c.id == scope)
        with self.store.read() as connection:
            return int(connection.execute(query).scalar_one())

    def usage(self) -> list[dict[str, object]]:
        with self.store.read() as connection:
            rows = connection.execute(select(tables.usage).order_by(tables.usage.c.id))
            return [dict(row._mapping) for row in rows]


@pytest.fixture
def site(store: Store) -> Clocked:
    return Clocked(store)


def check_sums(store: Store) -> None:
    """What every window says it spent is what usage says, to the nano-dollar."""
    u = tables.usage.c
    scopes: dict[str, Callable[[], object]] = {
        "key": lambda: u.key_id, "tenant": lambda: u.tenant_id, "model": lambda: u.model,
    }  # fmt: skip
    total_tokens = func.sum(u.input_tokens + u.output_tokens + u.embedding_tokens)
    with store.read() as connection:
        windows = {row.id: row for row in connection.execute(select(tables.windows))}
        assert all(row.held_nusd >= 0 <= row.held_tokens for row in windows.values())
        for kind, column in scopes.items():
            for length in (7, 10):
                when = func.substr(u.day, 1, length)
                name = column()
                query = select(name, when, func.sum(u.cost_nusd), total_tokens)  # type: ignore[call-overload]
                for who, day, cost, tokens in connection.execute(query.group_by(name, when)):
                    window = windows.pop(f"{kind}:{who}@{day}")
                    assert (window.spent_nusd, window.spent_tokens) == (cost, tokens)
        rest = [w for id, w in windows.items() if not id.startswith("tenant_model:")]
        assert all(w.spent_nusd == w.spent_tokens == 0 for w in rest)


def test_without_limits_nothing_is_held_and_all_is_booked(site: Clocked) -> None:
    outcome = site.ask(Tokens(10, 0, 10))
    assert outcome == Granted(None)
    site.settle(None, Tokens(input=10, cached=4, output=5))
    cost = 6 * 1000 + 4 * 500 + 5 * 2000
    for scope in PAYER.scopes:
        assert site.window(f"{scope}@2026-11-30") == (cost, 0, 15, 0)
        assert site.window(f"{scope}@2026-11") == (cost, 0, 15, 0)
    check_sums(site.store)


@pytest.mark.parametrize(
    ("payer", "used", "nusd"),
    [
        (PAYER, Tokens(embedding=8), 2000),
        (Payer("default", "k", "m", "big"), Tokens(input=5, output=2), 20_000),
        (Payer("default", "k", "m", "other"), Tokens(output=2), 4000),
        (Payer("default", "k", "g"), Tokens(output=9, gpu_us=1), 1),
        (Payer("default", "k", "g"), Tokens(gpu_us=2_500_000), 2_500_000),
        (Payer("default", "k", "unpriced"), Tokens(input=10), 0),
    ],
)
def test_costs(payer: Payer, used: Tokens, nusd: int) -> None:
    assert PRICES.of(payer.model, payer.adapter).cost(used) == nusd


@pytest.mark.parametrize("scope", PAYER.scopes)
@pytest.mark.parametrize("limit", ["nusd_per_day", "nusd_per_month"])
def test_a_budget_holds_at_every_scope(site: Clocked, scope: str, limit: str) -> None:
    site.limit(scope, **{limit: 5000})
    held = site.hold(Tokens(input=3))
    refused = site.refused(Tokens(input=3))
    assert (refused.limit, refused.scope) == (limit.replace("nusd", "usd"), scope)
    assert (refused.maximum, refused.remaining, refused.needed) == (5000, 2000, 3000)
    assert refused.is_budget
    assert refused.retry_after_s == 12 * 3600
    assert "$0.000005" in refused.message
    site.settle(held, Tokens(input=1))
    assert isinstance(site.ask(Tokens(input=4)), Granted)
    assert site.refused(Tokens(input=1)).remaining == 0
    check_sums(site.store)


def test_what_can_never_be_granted_says_so(site: Clocked) -> None:
    site.limit("model:m", tokens_per_day=10, tokens_per_minute=50, nusd_per_request=10_000)
    assert site.refused(Tokens(input=11)).limit == "usd_per_request"
    assert site.refused(Tokens(embedding=11)).retry_after_s is None
    assert site.refused(Tokens(embedding=51)).limit == "tokens_per_minute"
    assert site.refused(Tokens(embedding=51)).retry_after_s is None


def test_a_limit_set_later_counts_what_was_spent_before(site: Clocked) -> None:
    site.settle(None, Tokens(input=4))
    site.limit("tenant:default", nusd_per_month=5000)
    assert site.refused(Tokens(input=2)).remaining == 1000


def test_other_tenants_have_budgets_of_their_own(site: Clocked) -> None:
    site.limit("tenant:default", tokens_per_day=5)
    site.hold(Tokens(input=5))
    site.refused(Tokens(input=1))
    assert site.ask(Tokens(input=5), Payer("other", "key_2", "m")) == Granted(None)


def test_settled_twice_is_once(site: Clocked) -> None:
    site.limit("key:key_1", nusd_per_day=10_000)
    held = site.hold(Tokens(input=5))
    done = Settle(PAYER, Tokens(input=2), "/x", reservation=held)
    site.ledger.apply([done, done])
    site.ledger.apply([done])
    assert site.window("key:key_1@2026-11-30") == (2000, 0, 2, 0)
    assert len(site.usage()) == 1
    check_sums(site.store)


def test_a_batch_that_may_have_been_written_is_not_written_twice(site: Clocked) -> None:
    site.limit("tenant:default", nusd_per_day=10_000, parallel_requests=3)
    ask = Reserve(PAYER, Tokens(input=4))
    done = Settle(PAYER, Tokens(input=1), "/x")
    first = site.ledger.apply([ask, done])
    second = site.ledger.apply([ask, done], again=True)
    assert isinstance(first[0], Granted)
    assert isinstance(second[0], Granted)
    assert first[0].reservation == second[0].reservation
    assert site.window("tenant:default@2026-11-30") == (1000, 4000, 1, 4)
    assert site.meter("tenant:default") == 1
    check_sums(site.store)


def test_settling_after_midnight_books_where_it_was_reserved(site: Clocked) -> None:
    site.limit("key:key_1", nusd_per_day=10_000, nusd_per_month=10_000)
    site.pass_(12 * 3600 - 1)
    held = site.hold(Tokens(input=5))
    site.pass_(2)
    assert isinstance(site.ask(Tokens(input=10)), Granted), "a new day and month"
    site.settle(held, Tokens(input=3))
    assert site.window("key:key_1@2026-11-30") == (3000, 0, 3, 0)
    assert site.window("key:key_1@2026-11") == (3000, 0, 3, 0)
    assert site.window("key:key_1@2026-12") == (0, 10_000, 0, 10)
    assert site.usage()[0]["day"] == "2026-11-30"
    check_sums(site.store)


def test_more_than_reserved_is_booked_and_flagged(site: Clocked) -> None:
    site.limit("key:key_1", nusd_per_day=10_000)
    site.settle(site.hold(Tokens(input=1)), Tokens(input=2))
    assert site.usage()[0]["flag"] == "over"
    assert site.window("key:key_1@2026-11-30") == (2000, 0, 2, 0)


def test_released_is_as_if_never_asked_but_for_the_request(site: Clocked) -> None:
    site.limit("key:key_1", nusd_per_day=9000, parallel_requests=1, tokens_per_minute=9)
    held = site.hold(Tokens(input=9))
    assert site.refused(Tokens(input=1)).limit == "parallel_requests"
    site.ledger.apply([Release(held), Release(held), Release("rsv_unknown")])
    assert site.window("key:key_1@2026-11-30") == (0, 0, 0, 0)
    assert site.usage() == []
    site.hold(Tokens(input=9))


def test_a_limit_removed_meanwhile_leaves_nothing_held(site: Clocked) -> None:
    site.limit("key:key_1", nusd_per_day=9000, parallel_requests=1)
    held = site.hold(Tokens(input=9))
    site.limit("key:key_1")
    site.settle(held, Tokens(input=9))
    assert site.window("key:key_1@2026-11-30") == (9000, 0, 9, 0)
    assert site.meter("key:key_1") == 0


def test_requests_per_minute(site: Clocked) -> None:
    site.limit("tenant:default", requests_per_minute=7)
    left = []
    for _ in range(7):
        outcome = site.ask(Tokens(input=1))
        assert isinstance(outcome, Granted)
        assert outcome.requests is not None
        left.append(outcome.requests.remaining)
    assert left == [6, 5, 4, 3, 2, 1, 0]
    refused = site.refused(Tokens(input=1))
    assert (refused.limit, refused.is_budget) == ("requests_per_minute", False)
    assert refused.retry_after_s == pytest.approx(60 / 7, abs=1e-6)
    site.pass_(60 / 7 + 1e-5)
    site.hold(Tokens(input=1))
    site.refused(Tokens(input=1))


def test_tokens_per_minute_come_back_when_unused(site: Clocked) -> None:
    site.limit("model:m", tokens_per_minute=100)
    held = site.hold(Tokens(input=10, output=90))
    assert site.refused(Tokens(input=1)).limit == "tokens_per_minute"
    site.settle(held, Tokens(input=10, output=40))
    outcome = site.ask(Tokens(input=50))
    assert isinstance(outcome, Granted)
    assert outcome.tokens is not None
    assert (outcome.tokens.maximum, outcome.tokens.remaining) == (100, 0)
    site.pass_(30)
    assert site.refused(Tokens(input=51)).remaining == 50
    site.hold(Tokens(input=50))


def test_a_dead_gateways_reservations_expire(site: Clocked) -> None:
    site.limit("key:key_1", nusd_per_day=9000, parallel_requests=2)
    held = site.hold(Tokens(input=9))
    other = Ledger(site.store, PRICES, LimitBook(site.store, 60), "gateway-2")
    other.renew(30)
    assert other.expire() == 0
    site.pass_(31)
    other.renew(30)
    assert other.expire() == 1
    assert other.expire() == 0
    assert site.window("key:key_1@2026-11-30") == (0, 0, 0, 0)
    assert site.meter("key:key_1") == 0
    with site.store.read() as connection:
        assert connection.execute(select(tables.reservations.c.state)).scalar_one() == "expired"
    site.settle(held, Tokens(input=2))
    assert site.usage()[0]["flag"] == "late"
    assert site.window("key:key_1@2026-11-30") == (2000, 0, 2, 0)
    check_sums(site.store)


def test_a_gateway_that_leaves_is_released_at_once(site: Clocked) -> None:
    site.limit("key:key_1", nusd_per_day=9000)
    site.hold(Tokens(input=9))
    site.ledger.leave()
    assert site.ledger.expire() == 1


def test_alerts_are_raised_once_a_window_and_threshold(site: Clocked) -> None:
    site.limit("tenant:default", nusd_per_day=10_000)
    for tokens in (4, 1, 1, 3, 1):
        site.settle(site.hold(Tokens(input=tokens)), Tokens(input=tokens))
    with site.store.read() as connection:
        rows = connection.execute(select(tables.alerts).order_by(tables.alerts.c.at_us)).all()
    assert {(row.id, row.spent) for row in rows} == {
        ("tenant:default@2026-11-30/usd/50", 5000), ("tenant:default@2026-11-30/usd/100", 10_000),
    }  # fmt: skip
