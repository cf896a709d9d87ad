"""The audit log: who did what to what, when, on behalf of which request. It only grows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select

from serving.store.database import Store
from serving.store.tables import audit


@dataclass(frozen=True)
class Actor:
    """On whose behalf a change is made."""

    name: str
    """A key's id, `oidc:<subject>`, or `system`."""
    request_id: str | None = None


SYSTEM = Actor("system")
"""Corral itself, at its first start."""


@dataclass(frozen=True)
class Entry:
    """One line of the log. `at_us`: microseconds since 1970."""

    id: int
    at_us: int
    actor: str
    action: str
    target: str
    tenant_id: str | None
    request_id: str | None
    detail: dict[str, Any] | None


def record(
    connection: Connection,
    store: Store,
    actor: Actor,
    action: str,
    target: str,
    *,
    tenant_id: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Write one line in the transaction of the change itself. `detail` must hold no secret."""
    connection.execute(
        insert(audit).values(
            at_us=store.now_us(),
            actor=actor.name,
            action=action,
            target=target,
            tenant_id=tenant_id,
            request_id=actor.request_id,
            detail=None if detail is None else dict(detail),
        )
    )


def entries(
    store: Store, *, before: int | None = None, tenant_id: str | None = None, limit: int = 100
) -> list[Entry]:
    """The newest lines first, of ids below `before`."""
    query = select(audit).order_by(audit.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(audit.c.id < before)
    if tenant_id is not None:
        query = query.where(audit.c.tenant_id == tenant_id)
    with store.read() as connection:
        return [Entry(**row._mapping) for row in connection.execute(query)]
