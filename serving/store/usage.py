"""Who used what: sums over the usage entries, by any mixture of key, tenant, model and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, func, select

from serving.store.database import Store
from serving.store.tables import usage

By = Literal["key", "tenant", "model", "adapter", "day", "endpoint", "status"]
COLUMNS: dict[By, ColumnElement[str]] = {
    "key": usage.c.key_id,
    "tenant": usage.c.tenant_id,
    "model": usage.c.model,
    "adapter": usage.c.adapter,
    "day": usage.c.day,
    "endpoint": usage.c.endpoint,
    "status": usage.c.status,
}
_SUMS = {
    "input_tokens": usage.c.input_tokens,
    "cached_tokens": usage.c.cached_tokens,
    "output_tokens": usage.c.output_tokens,
    "embedding_tokens": usage.c.embedding_tokens,
    "cost_nusd": usage.c.cost_nusd,
    "gpu_us": usage.c.gpu_us,
}


@dataclass(frozen=True)
class UsageQuery:
    """What to add up. Times are microseconds since 1970: from `since_us`, before `until_us`."""

    by: Sequence[By] = ()
    since_us: int | None = None
    until_us: int | None = None
    tenant: str | None = None
    key: str | None = None
    """A key's lineage."""
    model: str | None = None
    limit: int = 10_000


@dataclass(frozen=True)
class UsageRow:
    """Sums over the entries that share the values in `group`."""

    group: dict[str, str]
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    embedding_tokens: int
    cost_nusd: int
    gpu_us: int


def usage_of(store: Store, query: UsageQuery) -> list[UsageRow]:
    """One row per group, in the order of the groups. Raises StoreUnavailable."""
    groups = [COLUMNS[name].label(name) for name in query.by]
    sums = [func.coalesce(func.sum(column), 0).label(name) for name, column in _SUMS.items()]
    statement = select(*groups, func.count().label("requests"), *sums).where(*_conditions(query))
    if groups:
        columns = [COLUMNS[name] for name in query.by]
        statement = statement.group_by(*columns).order_by(*columns)
    with store.read() as connection:
        rows = connection.execute(statement.limit(query.limit)).all()
    return [_row(row._mapping, query.by) for row in rows]


def _conditions(query: UsageQuery) -> list[ColumnElement[bool]]:
    wanted = [
        None if query.since_us is None else usage.c.at_us >= query.since_us,
        None if query.until_us is None else usage.c.at_us < query.until_us,
        None if query.tenant is None else usage.c.tenant_id == query.tenant,
        None if query.key is None else usage.c.key_id == query.key,
        None if query.model is None else usage.c.model == query.model,
    ]
    return [condition for condition in wanted if condition is not None]


def _row(values: Any, by: Sequence[By]) -> UsageRow:
    sums = {name: int(values[name]) for name in _SUMS}
    return UsageRow({name: values[name] for name in by}, requests=values["requests"], **sums)
