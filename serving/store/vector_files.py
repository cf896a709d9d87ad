"""Files in vector stores: added, changed, removed; and what the index is to be told of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, exists, insert, or_, select, update

from serving.store.database import Store
from serving.store.errors import Conflict, NotFound
from serving.store.secret import new_id
from serving.store.tables import blobs
from serving.store.vector_rows import (
    Batch,
    FileCounts,
    FileSpec,
    FileStatus,
    Listed,
    Page,
    Scalar,
    StoreFile,
    Task,
)
from serving.store.vector_stores import counted, paged
from serving.store.vector_tables import vector_store_batches as batches
from serving.store.vector_tables import vector_store_files as files
from serving.store.vector_tables import vector_stores as stores

_THERE = files.c.status != "deleted"
_MANY = 500
"""Values in one IN clause."""


class VectorFiles:
    """The files of all stores. Whoever calls has made sure whose the store is."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, store_id: str, specs: Sequence[FileSpec], *, batch: bool = False) -> str | None:
        """Put files into a store; one that is in it already is indexed anew. The batch's id.

        Each file may be named once.
        """
        id, now = new_id("vsfb") if batch else None, self._store.now_us()
        with self._store.write() as connection:
            if id is not None:
                values = {"id": id, "store_id": store_id, "created_us": now}
                connection.execute(insert(batches).values(values))
            known = _known(connection, store_id, [spec.file_id for spec in specs])
            for number, spec in enumerate(specs):
                values = _fresh(spec, id, now + number)
                if spec.file_id in known:
                    row = and_(files.c.store_id == store_id, files.c.file_id == spec.file_id)
                    changed = {**values, "revision": files.c.revision + 1}
                    connection.execute(update(files).where(row).values(changed))
                else:
                    connection.execute(insert(files).values(store_id=store_id, **values))
        return id

    def get(self, store_id: str, file_id: str) -> StoreFile:
        """Raises NotFound."""
        with self._store.read() as connection:
            return _file(_one(connection, store_id, file_id))

    def page(
        self, store_id: str, page: Page, *, status: FileStatus | None = None,
        batch_id: str | None = None,
    ) -> Listed[StoreFile]:  # fmt: skip
        """By age; of a status, of a batch."""
        query = select(files).where(files.c.store_id == store_id, _THERE)
        if status is not None:
            query = query.where(files.c.status == status)
        if batch_id is not None:
            query = query.where(files.c.batch_id == batch_id)
        with self._store.read() as connection:
            rows = paged(connection, query, files, files.c.file_id, page)
        return Listed([_file(row) for row in rows.data], rows.has_more)

    def describe(
        self, store_id: str, file_id: str, attributes: Mapping[str, Scalar] | None
    ) -> StoreFile:
        """Replace its attributes. Raises NotFound."""
        with self._store.write() as connection:
            row = _one(connection, store_id, file_id)
            _change(
                connection, row,
                attributes=None if attributes is None else dict(attributes),
                work=row.work or ("describe" if row.status == "completed" else None),
            )  # fmt: skip
        return self.get(store_id, file_id)

    def remove(self, store_id: str, file_id: str) -> None:
        """It is not found from now on; the index follows. Raises NotFound."""
        with self._store.write() as connection:
            row = _one(connection, store_id, file_id)
            _change(connection, row, status="deleted", work="remove")

    def batch(self, store_id: str, id: str) -> Batch:
        """Raises NotFound."""
        query = select(batches).where(batches.c.id == id, batches.c.store_id == store_id)
        with self._store.read() as connection:
            row = connection.execute(query).one_or_none()
            if row is None:
                raise NotFound(f"no file batch {id[:64]!r} in vector store {store_id}")
            counts = counted(connection, files.c.batch_id, [id])
            return Batch(**row._mapping, counts=counts.get(id, FileCounts()))

    def cancel(self, store_id: str, id: str) -> Batch:
        """What is not indexed yet will not be. Raises NotFound, Conflict when all of it is."""
        found = self.batch(store_id, id)
        if found.cancelled_us is None and not found.counts.in_progress:
            raise Conflict(f"the file batch {id} is done: there is nothing to cancel")
        waiting = and_(files.c.batch_id == id, files.c.status == "in_progress")
        with self._store.write() as connection:
            connection.execute(
                update(files).where(waiting)
                .values(status="cancelled", work="remove", revision=files.c.revision + 1)
            )  # fmt: skip
            connection.execute(
                update(batches)
                .where(batches.c.id == id, batches.c.cancelled_us.is_(None))
                .values(cancelled_us=self._store.now_us())
            )
        return self.batch(store_id, id)

    def searchable(self, store_id: str, file_ids: Sequence[str]) -> dict[str, StoreFile]:
        """Those of the files that may be shown now: indexed, and neither removed nor expired."""
        blob_lives = exists().where(
            blobs.c.id == files.c.file_id, _lives(self._store.now_us())
        )  # fmt: skip
        query = select(files).where(
            files.c.store_id == store_id,
            files.c.file_id.in_(file_ids),
            files.c.status == "completed",
            blob_lives,
        )
        with self._store.read() as connection:
            return {row.file_id: _file(row) for row in connection.execute(query)}

    def tasks(self, limit: int, after_tenant: str = "") -> list[Task]:
        """What is to be done next, all in one store: of the tenant after the last one served,
        so that nobody waits for the whole of another's."""
        query = (
            select(files, stores.c.tenant_id)
            .join(stores, stores.c.id == files.c.store_id)
            .where(files.c.work.is_not(None), stores.c.work.is_(None))
        )
        order = (stores.c.tenant_id, files.c.attempts, files.c.created_us, files.c.file_id)
        with self._store.read() as connection:
            first = None
            for wanted in (query.where(stores.c.tenant_id > after_tenant), query):
                first = connection.execute(wanted.order_by(*order).limit(1)).first()
                if first is not None:
                    break
            if first is None:
                return []
            mine = query.where(files.c.store_id == first.store_id)
            return [_task(row) for row in connection.execute(mine.order_by(*order).limit(limit))]

    def done(self, task: Task, **values: Any) -> bool:
        """The index was told. False, and nothing changed, if a user has changed the file since."""
        row = and_(
            files.c.store_id == task.store_id,
            files.c.file_id == task.file.file_id,
            files.c.revision == task.revision,
        )
        with self._store.write() as connection:
            if task.work == "remove" and task.deleted:
                return connection.execute(delete(files).where(row)).rowcount > 0
            changed = update(files).where(row).values(work=None, attempts=0, **values)
            return connection.execute(changed).rowcount > 0

    def tried(self, task: Task) -> None:
        """It went wrong, and is tried again."""
        row = and_(files.c.store_id == task.store_id, files.c.file_id == task.file.file_id)
        with self._store.write() as connection:
            connection.execute(update(files).where(row).values(attempts=files.c.attempts + 1))

    def sweep(self) -> None:
        """Files whose upload was deleted or has expired leave the stores."""
        gone = ~exists().where(blobs.c.id == files.c.file_id, _lives(self._store.now_us()))
        values = {"status": "deleted", "work": "remove", "revision": files.c.revision + 1}
        with self._store.read() as connection:
            if (
                connection.execute(select(files.c.file_id).where(_THERE, gone).limit(1)).first()
                is None
            ):
                return
        with self._store.write() as connection:
            connection.execute(update(files).where(_THERE, gone).values(values))


def _lives(now_us: int) -> Any:
    return or_(blobs.c.expires_us.is_(None), blobs.c.expires_us > now_us)


def _known(connection: Connection, store_id: str, ids: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for at in range(0, len(ids), _MANY):
        query = select(files.c.file_id).where(
            files.c.store_id == store_id, files.c.file_id.in_(ids[at : at + _MANY])
        )
        found |= {row.file_id for row in connection.execute(query)}
    return found


def _fresh(spec: FileSpec, batch_id: str | None, now: int) -> dict[str, Any]:
    return {
        "file_id": spec.file_id,
        "filename": spec.filename,
        "batch_id": batch_id,
        "created_us": now,
        "status": "in_progress",
        "attributes": None if spec.attributes is None else dict(spec.attributes),
        "chunking": None if spec.chunking is None else dict(spec.chunking),
        "error_code": None,
        "error_message": None,
        "work": "ingest",
        "attempts": 0,
    }


def _one(connection: Connection, store_id: str, file_id: str) -> Row[Any]:
    query = select(files).where(files.c.store_id == store_id, files.c.file_id == file_id, _THERE)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"no file {file_id[:64]!r} in vector store {store_id}")
    return row


def _change(connection: Connection, row: Row[Any], **values: Any) -> None:
    same = and_(files.c.store_id == row.store_id, files.c.file_id == row.file_id)
    values["revision"] = files.c.revision + 1
    connection.execute(update(files).where(same).values(values))


_OWN = ("work", "revision", "attempts", "tenant_id")


def _file(row: Row[Any]) -> StoreFile:
    return StoreFile(**{name: v for name, v in row._mapping.items() if name not in _OWN})


def _task(row: Row[Any]) -> Task:
    return Task(
        tenant_id=row.tenant_id,
        store_id=row.store_id,
        file=_file(row),
        work=row.work,
        deleted=row.status == "deleted",
        revision=row.revision,
        attempts=row.attempts,
    )
