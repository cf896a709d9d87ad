"""The ledger against a model of a few lines: reserve, settle, release, crash, in any order."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import func, select

from serving.store import tables
from serving.store.audit import SYSTEM
from serving.store.database import Store
from serving.store.ledger import Ledger
from serving.store.ledger_types import Granted, Payer, Refused, Release, Reserve, Settle, Tokens
from serving.store.limits import LimitBook, Limits, LimitStore
from serving.store.tenants import TenantStore
from tests.unit.store.test_ledger import NOON, PRICES

BUDGET_TOKENS, PARALLEL = 40, 4
_numbers = itertools.count()


@dataclass
class Reservation:
    """What the model remembers of one."""

    tokens: int
    gateway: int
    live: bool = True
    booked: bool = False


@dataclass
class Model:
    """The truth, kept the simple way."""

    spent: int = 0
    reservations: dict[str, Reservation] = field(default_factory=dict)

    @property
    def live(self) -> list[Reservation]:
        return [r for r in self.reservations.values() if r.live]

    @property
    def held(self) -> int:
        return sum(r.tokens for r in self.live)


class LedgerMachine(RuleBasedStateMachine):
    """Two gateways, one budget."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store, self.model = store, Model()
        self.now_us = NOON
        store.now_us = lambda: self.now_us  # type: ignore[method-assign]
        tenant = f"machine-{next(_numbers)}"
        TenantStore(store).create(tenant, SYSTEM)
        limits = Limits(tokens_per_day=BUDGET_TOKENS, parallel_requests=PARALLEL)
        LimitStore(store).set(f"tenant:{tenant}", limits, SYSTEM)
        self.payer = Payer(tenant, "key_1", "m")
        self.scope = f"tenant:{tenant}"
        self.generation = itertools.count()
        self.ledgers = [self.start(), self.start()]

    def start(self) -> Ledger:
        name = f"{self.payer.tenant_id}-{next(self.generation)}"
        ledger = Ledger(self.store, PRICES, LimitBook(self.store, 3600), name)
        ledger.renew(30)
        return ledger

    def nth(self, n: int) -> str | None:
        ids = list(self.model.reservations)
        return ids[n % len(ids)] if ids else None

    @rule(tokens=st.lists(st.integers(1, 25), min_size=1, max_size=4), gateway=st.integers(0, 1))
    def reserve(self, tokens: list[int], gateway: int) -> None:
        asks = [Reserve(self.payer, Tokens(input=n)) for n in tokens]
        for ask, outcome in zip(asks, self.ledgers[gateway].apply(asks), strict=True):
            need = ask.estimate.total
            fits = self.model.spent + self.model.held + need <= BUDGET_TOKENS
            if fits and len(self.model.live) < PARALLEL:
                assert outcome == Granted(ask.id)
                self.model.reservations[ask.id] = Reservation(need, gateway)
            else:
                assert isinstance(outcome, Refused)

    @rule(n=st.integers(0, 99), used=st.integers(0, 25), gateway=st.integers(0, 1))
    def settle(self, n: int, used: int, gateway: int) -> None:
        id = self.nth(n)
        if id is None:
            return
        held = self.model.reservations[id]
        used = min(used, held.tokens)
        done = Settle(self.payer, Tokens(input=used), "/x", reservation=id)
        self.ledgers[gateway].apply([done])
        if not held.booked:
            self.model.spent += used
        held.live, held.booked = False, True

    @rule(n=st.integers(0, 99))
    def release(self, n: int) -> None:
        id = self.nth(n)
        if id is not None:
            self.ledgers[0].apply([Release(id)])
            self.model.reservations[id].live = False

    @rule(used=st.integers(0, 5))
    def settle_without_reservation(self, used: int) -> None:
        self.ledgers[0].apply([Settle(self.payer, Tokens(input=used), "/x")])
        self.model.spent += used

    @rule(gateway=st.integers(0, 1))
    def crash(self, gateway: int) -> None:
        self.now_us += 31_000_000
        self.ledgers[1 - gateway].renew(30)
        self.ledgers[1 - gateway].expire()
        self.ledgers[gateway] = self.start()
        for held in self.model.live:
            if held.gateway == gateway:
                held.live = False

    @rule()
    def expire_too_early(self) -> None:
        for ledger in self.ledgers:
            ledger.renew(30)
        assert self.ledgers[0].expire() == 0

    @invariant()
    def sums_agree(self) -> None:
        window = tables.windows
        day = select(window).where(window.c.id == f"{self.scope}@2026-11-30")
        meter = select(tables.meters.c.parallel).where(tables.meters.c.id == self.scope)
        usage = tables.usage.c
        booked = select(func.coalesce(func.sum(usage.cost_nusd), 0)).where(
            usage.tenant_id == self.payer.tenant_id
        )
        with self.store.read() as connection:
            row = connection.execute(day).one_or_none()
            parallel = connection.execute(meter).scalar_one_or_none() or 0
            cost = connection.execute(booked).scalar_one()
        spent, held = (row.spent_tokens, row.held_tokens) if row else (0, 0)
        assert (spent, held, parallel) == (self.model.spent, self.model.held, len(self.model.live))
        assert cost == (row.spent_nusd if row else 0) == self.model.spent * 1000


def test_the_ledger_is_the_model(store: Store) -> None:
    class Machine(LedgerMachine):
        def __init__(self) -> None:
            super().__init__(store)

    few = settings(max_examples=12, stateful_step_count=25)
    run_state_machine_as_test(Machine, settings=few)
