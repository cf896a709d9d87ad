"""What happens in fine-tuning jobs: events and checkpoints, the newest first."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Table, insert, select, update
from sqlalchemy.exc import IntegrityError

from serving.store.database import Store
from serving.store.errors import NotFound
from serving.store.finetuning_tables import finetuning_checkpoints as checkpoints
from serving.store.finetuning_tables import finetuning_events as events
from serving.store.finetuning_tables import finetuning_jobs as jobs


@dataclass(frozen=True)
class JobEvent:
    """One event. `type` is `message` or `metrics`."""

    at_us: int
    level: str
    type: str
    message: str
    data: Mapping[str, Any] | None = None
    id: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """A step whose adapter can be used, under `name`."""

    job_id: str
    at_us: int
    step: int
    name: str
    adapter: str
    version: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""


@dataclass(frozen=True)
class Progress:
    """What was read of a run since the last time."""

    events: Sequence[JobEvent]
    offset: int
    """How far its events file has been read, bytes."""
    estimated_us: int | None = None


def add_event(
    connection: Connection, job_id: str, at_us: int, message: str, level: str = "info"
) -> None:
    """Write one message in the transaction of what it tells of."""
    _add(connection, job_id, JobEvent(at_us, level, "message", message))


class JobEvents:
    """Events and checkpoints of all jobs; who may see a job is asked elsewhere."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def record(self, job_id: str, attempt: int, progress: Progress) -> bool:
        """Store events once: together with how far was read. False: another trainer has the job."""
        with self._store.write() as connection:
            changed = connection.execute(
                update(jobs)
                .where(
                    jobs.c.id == job_id,
                    jobs.c.attempt == attempt,
                    jobs.c.events_offset < progress.offset,
                )
                .values(events_offset=progress.offset)
            )
            if not changed.rowcount:
                return False
            for event in progress.events:
                _add(connection, job_id, event)
            if progress.estimated_us is not None:
                connection.execute(
                    update(jobs)
                    .where(jobs.c.id == job_id, jobs.c.status == "running")
                    .values(estimated_us=progress.estimated_us)
                )
            return True

    def say(self, job_id: str, message: str, level: str = "info") -> None:
        """Add one message."""
        with self._store.write() as connection:
            add_event(connection, job_id, self._store.now_us(), message, level)

    def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Make it known; a step that is known already stays as it was."""
        values = {**vars(checkpoint), "metrics": dict(checkpoint.metrics)}
        values["id"] = f"ftckpt_{secrets.token_hex(12)}"
        try:
            with self._store.write() as connection:
                connection.execute(insert(checkpoints).values(values))
        except IntegrityError:
            return

    def page(self, job_id: str, *, after: str | None = None, limit: int = 20) -> list[JobEvent]:
        """Events older than `after`. Raises NotFound for an `after` that is none of the job's."""
        with self._store.read() as connection:
            rows = _page(connection, events, job_id, after, limit)
            return [JobEvent(**_without(row, "number", "job_id")) for row in rows]

    def checkpoints(
        self, job_id: str, *, after: str | None = None, limit: int = 10
    ) -> list[Checkpoint]:
        """Checkpoints older than `after`. Raises NotFound as `page`."""
        with self._store.read() as connection:
            rows = _page(connection, checkpoints, job_id, after, limit)
            return [Checkpoint(**_without(row, "number")) for row in rows]

    def forget_checkpoint(self, name: str) -> None:
        """Its adapter was deleted."""
        with self._store.write() as connection:
            connection.execute(checkpoints.delete().where(checkpoints.c.name == name))


def _page(
    connection: Connection, table: Table, job_id: str, after: str | None, limit: int
) -> Sequence[Any]:
    query = select(table).where(table.c.job_id == job_id)
    if after is not None:
        known = select(table.c.number).where(table.c.job_id == job_id, table.c.id == after[:128])
        number = connection.execute(known).scalar_one_or_none()
        if number is None:
            raise NotFound(f"after: {after[:64]!r} is not in this list")
        query = query.where(table.c.number < number)
    return connection.execute(query.order_by(table.c.number.desc()).limit(limit)).all()


def _add(connection: Connection, job_id: str, event: JobEvent) -> None:
    id = f"ftevent-{secrets.token_hex(12)}"
    data = None if event.data is None else dict(event.data)
    connection.execute(
        insert(events).values({**vars(event), "id": id, "job_id": job_id, "data": data})
    )


def _without(row: Any, *names: str) -> dict[str, Any]:
    return {name: value for name, value in row._mapping.items() if name not in names}
