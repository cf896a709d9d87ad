"""What scopes have used today and this month, as the ledger's windows say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from serving.store.database import Store
from serving.store.ledger_rows import among, ids_parameter
from serving.store.periods import period
from serving.store.tables import meters, windows

_NOTHING = (0, 0, 0, 0)


@dataclass(frozen=True)
class Spent:
    """Per window: spent and held nano-dollars, spent and held tokens."""

    day: tuple[int, int, int, int]
    month: tuple[int, int, int, int]
    parallel: int
    """Requests under way."""


def spent_of(store: Store, scopes: Sequence[str]) -> dict[str, Spent]:
    """By scope. Raises StoreUnavailable."""
    now = period(store.now_us())
    ids = [f"{scope}@{name}" for scope in scopes for name in (now.day, now.month)]
    wanted = select(windows).where(among(windows.c.id, store.is_sqlite))
    running = select(meters.c.id, meters.c.parallel).where(among(meters.c.id, store.is_sqlite))
    with store.read() as connection:
        found = connection.execute(wanted, ids_parameter(ids, store.is_sqlite))
        rows = {
            row.id: (row.spent_nusd, row.held_nusd, row.spent_tokens, row.held_tokens)
            for row in found
        }
        parallel = {
            row.id: row.parallel
            for row in connection.execute(running, ids_parameter(scopes, store.is_sqlite))
        }
    return {
        scope: Spent(
            rows.get(f"{scope}@{now.day}", _NOTHING),
            rows.get(f"{scope}@{now.month}", _NOTHING),
            parallel.get(scope, 0),
        )
        for scope in scopes
    }
