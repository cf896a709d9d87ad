"""`corral store check`: the tables are the code's, and every window says what usage says."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from serving.store.database import Store
from serving.store.migrating import HEAD, differences, revision
from serving.store.tables import usage, windows


def check(store: Store) -> list[str]:
    """What is wrong, in words; empty when nothing is. Raises StoreUnavailable."""
    found = revision(store)
    if found != HEAD:
        return [f"the tables are at step {found}, the code at {HEAD}: `corral store migrate`"]
    faults = differences(store)
    with store.read() as connection:
        if store.is_sqlite:
            verdict = str(connection.exec_driver_sql("PRAGMA integrity_check").scalar())
            faults += [] if verdict == "ok" else [f"SQLite: {verdict}"]
        return faults + _sums(connection)


def _sums(connection: Connection) -> list[str]:
    """Windows of keys, tenants and models whose spending is not the sum of its usage."""
    u, faults = usage.c, []
    spent = {
        row.id: (row.spent_nusd, row.spent_tokens) for row in connection.execute(select(windows))
    }
    tokens = func.sum(u.input_tokens + u.output_tokens + u.embedding_tokens)
    for kind, column in (("key", u.key_id), ("tenant", u.tenant_id), ("model", u.model)):
        for length in (7, 10):
            when = func.substr(u.day, 1, length)
            query = select(column, when, func.sum(u.cost_nusd), tokens).group_by(column, when)
            for name, window, cost, used in connection.execute(query):
                id = f"{kind}:{name}@{window}"
                if spent.get(id) != (cost, used):
                    faults.append(f"{id} says {spent.get(id)}, its usage {(int(cost), int(used))}")
    return faults
