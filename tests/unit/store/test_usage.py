"""Sums over usage, by any mixture of groups."""

from __future__ import annotations

from itertools import combinations

import pytest

from serving.store.database import Store
from serving.store.ledger_types import Payer, Tokens
from serving.store.usage import COLUMNS, UsageQuery, usage_of
from tests.unit.store.test_ledger import NOON, Clocked


@pytest.fixture
def site(store: Store) -> Clocked:
    site = Clocked(store)
    for n, payer in enumerate(
        [Payer("a", "k1", "m"), Payer("a", "k2", "m", "big"), Payer("b", "k3", "m")] * 2
    ):
        site.settle(None, Tokens(input=n + 1, output=1), payer)
        site.pass_(86_400 / 4)
    return site


def test_everything_is_one_row(site: Clocked) -> None:
    (row,) = usage_of(site.store, UsageQuery())
    assert (row.requests, row.input_tokens, row.output_tokens) == (6, 21, 6)
    assert row.cost_nusd == 21_000 - 7_000 + 4 * 2_000 + 2 * 10_000


def test_every_mixture_of_groups_adds_up(site: Clocked) -> None:
    names = list(COLUMNS)
    for size in range(1, len(names) + 1):
        for by in combinations(names, size):
            rows = usage_of(site.store, UsageQuery(by))
            assert sum(row.requests for row in rows) == 6
            assert sum(row.input_tokens for row in rows) == 21
            assert len({tuple(row.group.items()) for row in rows}) == len(rows)
    by_key = usage_of(site.store, UsageQuery(["key"]))
    assert {row.group["key"]: row.input_tokens for row in by_key} == {"k1": 5, "k2": 7, "k3": 9}
    by_day = usage_of(site.store, UsageQuery(["day"]))
    assert [(row.group["day"], row.requests) for row in by_day] == [
        ("2026-11-30", 2), ("2026-12-01", 4),
    ]  # fmt: skip


def test_filters(site: Clocked) -> None:
    def requests(**wanted: object) -> int:
        return usage_of(site.store, UsageQuery(**wanted))[0].requests  # type: ignore[arg-type]

    assert requests(tenant="a") == 4
    assert requests(key="k3") == 2
    assert requests(model="none") == 0
    quarter = 86_400_000_000 // 4
    assert requests(since_us=NOON + quarter) == 5
    assert requests(until_us=NOON + quarter) == 1
    assert requests(since_us=NOON, until_us=NOON) == 0
