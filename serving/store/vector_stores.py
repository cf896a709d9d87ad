"""Vector stores: what clients make, list, change, delete, and what lets them expire."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Table,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from serving.store import audit
from serving.store.audit import Actor
from serving.store.database import Store
from serving.store.errors import NotFound
from serving.store.secret import new_id
from serving.store.vector_rows import FileCounts, Listed, Page, StoreSpec, VectorStore
from serving.store.vector_tables import vector_store_batches as batches
from serving.store.vector_tables import vector_store_files as files
from serving.store.vector_tables import vector_stores as stores

DAY_US = 86_400_000_000
_ACTIVE_STEP_US = 1_000_000
"""`last_active_us` is shown in seconds, and written no oftener."""
_THERE = stores.c.work.is_distinct_from("delete")


class VectorStores:
    """Every tenant's stores. Calls on behalf of somebody name the tenant and see no other's."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, spec: StoreSpec, actor: Actor) -> VectorStore:
        """A new, empty store."""
        id, now = new_id("vs"), self._store.now_us()
        values = {**vars(spec), "metadata": None if spec.metadata is None else dict(spec.metadata)}
        with self._store.write() as connection:
            connection.execute(
                insert(stores).values(
                    id=id, created_us=now, last_active_us=now,
                    expires_us=_expires(now, spec.expires_days), **values,
                )
            )  # fmt: skip
            self._audit(connection, actor, "create", id, spec.tenant_id)
        return self.get(spec.tenant_id, id)

    def get(self, tenant_id: str, id: str) -> VectorStore:
        """Raises NotFound, also for the store of another tenant."""
        with self._store.read() as connection:
            return self._one(connection, tenant_id, id)

    def page(
        self, tenant_id: str, page: Page, allowed: Callable[[str, str], bool] | None = None
    ) -> Listed[VectorStore]:
        """A tenant's stores by age; those of which `allowed(id, name)` is not true are left out."""
        with self._store.read() as connection:
            query = select(stores).where(stores.c.tenant_id == tenant_id, _THERE)
            keep = None if allowed is None else lambda row: allowed(row.id, row.name)
            rows = paged(connection, query, stores, stores.c.id, page, keep)
            return Listed(self._viewed(connection, rows.data), rows.has_more)

    def change(
        self, tenant_id: str, id: str, changes: Mapping[str, Any], actor: Actor
    ) -> VectorStore:
        """Set `name`, `metadata` or `expires_days`; it was active now. Raises NotFound."""
        now = self._store.now_us()
        with self._store.write() as connection:
            found = self._one(connection, tenant_id, id)
            days = changes.get("expires_days", found.expires_days)
            values: dict[str, Any] = {**changes, "last_active_us": now}
            if not found.expired:
                values["expires_us"] = _expires(now, days)
            connection.execute(update(stores).where(stores.c.id == id).values(values))
            self._audit(connection, actor, "update", id, tenant_id)
        return self.get(tenant_id, id)

    def touch(self, found: VectorStore) -> None:
        """It was searched, or got a file."""
        now = self._store.now_us()
        if found.expired or now - found.last_active_us < _ACTIVE_STEP_US:
            return
        values = {"last_active_us": now, "expires_us": _expires(now, found.expires_days)}
        with self._store.write() as connection:
            connection.execute(update(stores).where(stores.c.id == found.id).values(values))

    def delete(self, tenant_id: str, id: str, actor: Actor) -> None:
        """Nobody sees it from now on; the index follows. Raises NotFound."""
        with self._store.write() as connection:
            self._one(connection, tenant_id, id)
            connection.execute(update(stores).where(stores.c.id == id).values(work="delete"))
            connection.execute(update(files).where(files.c.store_id == id).values(work=None))
            self._audit(connection, actor, "delete", id, tenant_id)

    def ended(self) -> list[tuple[str, str]]:
        """(tenant, store) of those whose chunks are to go, the newly expired with them."""
        late = and_(stores.c.expires_us <= self._store.now_us(), stores.c.work.is_(None))
        pending = stores.c.work.in_(("delete", "expire"))
        with self._store.read() as connection:
            if connection.execute(select(stores.c.id).where(or_(late, pending))).first() is None:
                return []
        with self._store.write() as connection:
            connection.execute(update(stores).where(late).values(work="expire"))
            rows = connection.execute(select(stores.c.tenant_id, stores.c.id).where(pending))
            return [(row.tenant_id, row.id) for row in rows]

    def emptied(self, id: str) -> None:
        """The index holds nothing of it any more: forget its files, and it if it is deleted."""
        with self._store.write() as connection:
            connection.execute(delete(files).where(files.c.store_id == id))
            connection.execute(delete(batches).where(batches.c.store_id == id))
            connection.execute(delete(stores).where(stores.c.id == id, stores.c.work == "delete"))
            expired = update(stores).where(stores.c.id == id, stores.c.work == "expire")
            connection.execute(expired.values(work="expired"))

    def _one(self, connection: Connection, tenant_id: str, id: str) -> VectorStore:
        query = select(stores).where(stores.c.id == id, stores.c.tenant_id == tenant_id, _THERE)
        row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound(f"no vector store {id[:64]!r}")
        return self._viewed(connection, [row])[0]

    def _viewed(self, connection: Connection, rows: Sequence[Row[Any]]) -> list[VectorStore]:
        ids = [row.id for row in rows]
        counts = counted(connection, files.c.store_id, ids)
        used = select(files.c.store_id, func.sum(files.c.usage_bytes)).where(
            files.c.store_id.in_(ids), files.c.status == "completed"
        )
        usage = {row[0]: int(row[1]) for row in connection.execute(used.group_by(files.c.store_id))}
        now = self._store.now_us()
        return [_view(row, now, counts.get(row.id), usage.get(row.id, 0)) for row in rows]

    def _audit(
        self, connection: Connection, actor: Actor, verb: str, id: str, tenant_id: str
    ) -> None:
        audit.record(
            connection, self._store, actor, f"vector_store.{verb}", id, tenant_id=tenant_id
        )


def counted(
    connection: Connection, column: ColumnElement[Any], values: Sequence[str]
) -> dict[str, FileCounts]:
    """Files by status, for each value of a column."""
    query = (
        select(column, files.c.status, func.count())
        .where(column.in_(values), files.c.status != "deleted")
        .group_by(column, files.c.status)
    )
    found: dict[str, dict[str, int]] = {}
    for value, status, count in connection.execute(query):
        found.setdefault(value, {})[status] = count
    return {value: FileCounts(**counts) for value, counts in found.items()}


def paged(
    connection: Connection,
    query: Any,
    table: Table,
    id: ColumnElement[str],
    page: Page,
    keep: Callable[[Row[Any]], bool] | None = None,
) -> Listed[Row[Any]]:
    """Rows of `query` by age. An id that is not there begins the list where it would stand."""
    created = table.c.created_us
    backwards = page.before is not None and page.after is None
    cursor = page.before if backwards else page.after
    descending = page.newest_first != backwards
    if cursor is not None:
        at = connection.execute(query.where(id == cursor)).first()
        if at is not None:
            when, key = at.created_us, at._mapping[id]
            older = or_(created < when, and_(created == when, id < key))
            newer = or_(created > when, and_(created == when, id > key))
            query = query.where(older if descending else newer)
        else:
            query = query.where(id < cursor if descending else id > cursor)
    order = (created.desc(), id.desc()) if descending else (created.asc(), id.asc())
    query = query.order_by(*order)
    if keep is None:
        rows = list(connection.execute(query.limit(page.limit + 1)))
    else:
        rows = [row for row in connection.execute(query) if keep(row)]
    data = rows[: page.limit]
    return Listed(data[::-1] if backwards else data, len(rows) > page.limit)


def _expires(active_us: int, days: int | None) -> int | None:
    return None if days is None else active_us + days * DAY_US


def _view(row: Row[Any], now: int, counts: FileCounts | None, usage_bytes: int) -> VectorStore:
    values = dict(row._mapping)
    work = values.pop("work")
    late = row.expires_us is not None and row.expires_us <= now
    return VectorStore(
        **values, expired=late or work in ("expire", "expired"), counts=counts or FileCounts(),
        usage_bytes=usage_bytes,
    )  # fmt: skip
