"""Tenants: whose keys, files, limits and money are kept apart."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from serving.store import audit
from serving.store.audit import Actor
from serving.store.database import Store
from serving.store.errors import Conflict, Invalid, NotFound
from serving.store.tables import tenants

DEFAULT = "default"
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_PUBLIC = [column for column in tenants.c if column.name != "cache_salt"]


@dataclass(frozen=True)
class Tenant:
    """A tenant as admins see it; its cache salt is never shown."""

    id: str
    name: str
    created_us: int
    disabled_us: int | None
    models: tuple[str, ...] | None
    """Patterns of the base models it may use; None allows all."""


class TenantStore:
    """Creates, lists and disables tenants."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(
        self, id: str, actor: Actor, *, name: str = "", models: Sequence[str] | None = None
    ) -> Tenant:
        """Raises Invalid for an id that is no slug, Conflict for one that exists."""
        if not _ID.fullmatch(id):
            raise Invalid(f"{id!r} is no tenant id: lower case letters, digits and -, at most 63")
        try:
            with self._store.write(announce=True) as connection:
                add_tenant(connection, self._store, id, name or id, models)
                audit.record(
                    connection, self._store, actor, "tenant.create", id, tenant_id=id,
                    detail={"models": None if models is None else list(models)},
                )  # fmt: skip
        except IntegrityError as exc:
            raise Conflict(f"tenant {id!r} exists already") from exc
        return self.get(id)

    def all(self) -> list[Tenant]:
        """All tenants, by id."""
        with self._store.read() as connection:
            return [_tenant(row) for row in connection.execute(select(*_PUBLIC).order_by("id"))]

    def get(self, id: str) -> Tenant:
        """Raises NotFound."""
        with self._store.read() as connection:
            row = connection.execute(select(*_PUBLIC).where(tenants.c.id == id)).one_or_none()
        if row is None:
            raise NotFound(f"no tenant {id!r}; `corral tenants list` shows all")
        return _tenant(row)

    def set_disabled(self, id: str, disabled: bool, actor: Actor) -> Tenant:
        """Refuse every key of the tenant from now on, or let them in again. Raises NotFound."""
        self.get(id)
        if disabled and id == DEFAULT:
            raise Conflict("the tenant `default` holds the admin key of the stack; keep it")
        when = self._store.now_us() if disabled else None
        action = "tenant.disable" if disabled else "tenant.enable"
        with self._store.write(announce=True) as connection:
            connection.execute(update(tenants).where(tenants.c.id == id).values(disabled_us=when))
            audit.record(connection, self._store, actor, action, id, tenant_id=id)
        return self.get(id)

    def set_models(self, id: str, models: Sequence[str] | None, actor: Actor) -> Tenant:
        """Replace the list of base models that the tenant may use. Raises NotFound."""
        self.get(id)
        patterns = None if models is None else list(models)
        with self._store.write(announce=True) as connection:
            connection.execute(update(tenants).where(tenants.c.id == id).values(models=patterns))
            audit.record(
                connection, self._store, actor, "tenant.models", id, tenant_id=id,
                detail={"models": patterns},
            )  # fmt: skip
        return self.get(id)


def add_tenant(
    connection: Connection, store: Store, id: str, name: str, models: Sequence[str] | None
) -> None:
    """Insert the row, with a fresh cache salt."""
    connection.execute(
        insert(tenants).values(
            id=id,
            name=name,
            created_us=store.now_us(),
            models=None if models is None else list(models),
            cache_salt=secrets.token_urlsafe(24),
        )
    )


def _tenant(row: Row[tuple[object, ...]]) -> Tenant:
    values = dict(row._mapping)
    models = values.pop("models")
    return Tenant(**values, models=None if models is None else tuple(models))
