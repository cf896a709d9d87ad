"""Fine-tuning jobs: their states, and which trainer answers for them.

validating_files ─> queued ─> running ─> succeeded | failed | cancelled
       └──────────────┴─────────┴─> paused ─> queued

A trainer claims a queued job (`begin`), renews its lease as long as it works (`beat`), and
ends it (`finish`). One whose lease has run out is dead: `interrupted` queues its job again.
What a trainer writes counts only while its attempt is the job's newest.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Row, Update, func, insert, or_, select, update

from serving.store import audit
from serving.store.audit import Actor
from serving.store.database import Store
from serving.store.errors import Conflict, Invalid, NotFound
from serving.store.finetuning_tables import finetuning_jobs as jobs
from serving.store.job_events import add_event
from serving.store.job_rows import OPEN, WAITING, Job, JobSpec, Outcome, Status
from serving.store.secret import new_id

__all__ = ["WAITING", "Job", "JobSpec", "JobStore", "Outcome", "Status", "new_seed"]


class JobStore:
    """Every tenant's jobs. Calls on behalf of somebody name the tenant and see no other's."""

    def __init__(self, store: Store, lease_s: float = 30.0) -> None:
        """`lease_s`: a trainer that is silent for this long is dead."""
        self._store = store
        self._lease_us = int(lease_s * 1e6)

    @property
    def now_us(self) -> int:
        """The store's clock."""
        return self._store.now_us()

    def create(self, spec: JobSpec, actor: Actor, *, max_open: int | None = None) -> Job:
        """Store a new job. Raises Conflict where the tenant has `max_open` jobs under way."""
        id = new_id("ftjob").replace("_", "-")
        now = self._store.now_us()
        mine = select(func.count()).where(
            jobs.c.tenant_id == spec.tenant_id, jobs.c.status.in_(WAITING)
        )
        with self._store.write() as connection:
            if max_open is not None and connection.execute(mine).scalar_one() >= max_open:
                raise Conflict(
                    f"{max_open} fine-tuning jobs of yours are under way, and that is the most; "
                    "cancel one or wait"
                )
            values = {**vars(spec), "method": dict(spec.method)}
            values["metadata"] = None if spec.metadata is None else dict(spec.metadata)
            connection.execute(
                insert(jobs).values(
                    id=id, key_id=actor.name, created_us=now, status="validating_files", **values
                )
            )
            add_event(connection, id, now, f"Created fine-tuning job: {id}")
            add_event(connection, id, now, f"Validating training file: {spec.training_file}")
            self._audit(connection, actor, "create", id, spec.tenant_id)
        return self.get(spec.tenant_id, id)

    def get(self, tenant_id: str | None, id: str) -> Job:
        """One job; of a tenant, or of anybody with None. Raises NotFound."""
        with self._store.read() as connection:
            return _get(connection, tenant_id, id)

    def page(
        self, tenant_id: str, *, after: str | None = None, limit: int = 20,
        metadata: Mapping[str, str] | None = None,
    ) -> list[Job]:  # fmt: skip
        """A tenant's jobs, the newest first, older than `after`, with all of this metadata."""
        query = select(jobs).where(jobs.c.tenant_id == tenant_id)
        if after is not None:
            query = query.where(jobs.c.id < after)
        found: list[Job] = []
        with self._store.read() as connection:
            for row in connection.execute(query.order_by(jobs.c.id.desc())):
                job = _job(row)
                if metadata and not metadata.items() <= (job.metadata or {}).items():
                    continue
                found.append(job)
                if len(found) == limit:
                    break
        return found

    def cancel(self, tenant_id: str | None, id: str, actor: Actor) -> Job:
        """End it now; its trainer is told. Raises NotFound, Conflict when it is over."""
        return self._decide(tenant_id, id, actor, "cancelled", OPEN, "cancel")

    def pause(self, tenant_id: str | None, id: str, actor: Actor) -> Job:
        """Stop at the next checkpoint, until `resume`. Raises NotFound, Conflict."""
        return self._decide(tenant_id, id, actor, "paused", WAITING, "pause")

    def resume(self, tenant_id: str | None, id: str, actor: Actor) -> Job:
        """Queue a paused job again; it goes on from its last checkpoint. Raises as `pause`."""
        return self._decide(tenant_id, id, actor, "queued", ("paused",), "resume")

    def open(self) -> list[Job]:
        """Jobs for which something is to be done, and those with a trainer; oldest first."""
        query = select(jobs).where(
            or_(jobs.c.status.in_(WAITING), jobs.c.lease_until_us.is_not(None))
        )
        with self._store.read() as connection:
            return [_job(row) for row in connection.execute(query.order_by(jobs.c.id))]

    def validated(self, id: str) -> None:
        """Its files are sound: it queues for the hardware."""
        with self._store.write() as connection:
            changed = connection.execute(
                update(jobs)
                .where(jobs.c.id == id, jobs.c.status == "validating_files")
                .values(status="queued")
            )
            if changed.rowcount:
                add_event(connection, id, self.now_us, "Files validated, moving job to queued")

    def refuse(self, id: str, error: Mapping[str, Any]) -> None:
        """It cannot be begun: `error` has OpenAI's `code`, `message`, `param`."""
        now = self.now_us
        with self._store.write() as connection:
            changed = connection.execute(
                update(jobs)
                .where(jobs.c.id == id, jobs.c.status.in_(WAITING))
                .values(status="failed", error=dict(error), finished_us=now, lease_until_us=None)
            )
            if changed.rowcount:
                add_event(connection, id, now, f"The job failed: {error['message']}", "error")

    def begin(self, id: str) -> Job | None:
        """Claim a queued job for a trainer. None where it is not there to be had."""
        now = self.now_us
        with self._store.write() as connection:
            changed = connection.execute(
                update(jobs)
                .where(
                    jobs.c.id == id,
                    jobs.c.status == "queued",
                    or_(jobs.c.lease_until_us.is_(None), jobs.c.lease_until_us < now),
                )
                .values(
                    status="running",
                    attempt=jobs.c.attempt + 1,
                    lease_until_us=now + self._lease_us,
                )
            )
            if not changed.rowcount:
                return None
            job = _get(connection, None, id)
            again = "" if job.attempt == 1 else f" (attempt {job.attempt})"
            add_event(connection, id, now, f"Fine-tuning job started{again}")
            return job

    def allocate(self, id: str, adapter: str, taken: Iterable[str]) -> Job:
        """The job with the version of `adapter` that it will make: the next whole number, above
        those that other jobs have and those `taken`. It stays the same for all its attempts."""
        with self._store.write() as connection:
            if not self._store.is_sqlite:
                connection.exec_driver_sql("LOCK TABLE finetuning_jobs IN SHARE ROW EXCLUSIVE MODE")
            job = _get(connection, None, id)
            if job.version is not None:
                return job
            others = connection.execute(select(jobs.c.version).where(jobs.c.adapter == adapter))
            used = [int(each) for each in (*taken, *others.scalars()) if str(each).isdigit()]
            values = {"adapter": adapter, "version": str(max(used, default=0) + 1)}
            connection.execute(update(jobs).where(jobs.c.id == id).values(values))
            return _get(connection, None, id)

    def beat(self, id: str, attempt: int) -> Job | None:
        """Renew the trainer's lease; the job as it is now. None: another trainer has it."""
        with self._store.write() as connection:
            changed = connection.execute(
                _mine(id, attempt).values(lease_until_us=self.now_us + self._lease_us)
            )
            return _get(connection, None, id) if changed.rowcount else None

    def finish(self, id: str, attempt: int, outcome: Outcome) -> bool:
        """The trainer has ended. What was decided meanwhile (cancelled, paused) stays.

        False when another trainer has the job, or when it had already ended otherwise.
        """
        now = self.now_us
        with self._store.write() as connection:
            freed = connection.execute(_mine(id, attempt).values(lease_until_us=None))
            if not freed.rowcount:
                return False
            over = outcome.status in ("succeeded", "failed", "cancelled")
            done = connection.execute(
                update(jobs)
                .where(jobs.c.id == id, jobs.c.status == "running")
                .values(
                    status=outcome.status,
                    error=None if outcome.error is None else dict(outcome.error),
                    finished_us=now if over else None,
                    estimated_us=None,
                    trained_tokens=outcome.trained_tokens,
                    result_file=outcome.result_file,
                    fine_tuned_model=outcome.fine_tuned_model,
                )
            )
            level = "error" if outcome.status == "failed" else "info"
            add_event(connection, id, now, outcome.message, level)
            return bool(done.rowcount)

    def interrupted(self, id: str, attempt: int, *, max_crashes: int) -> Status | None:
        """Its trainer is gone without a word: queue it again, or give up. The new status; None
        if it was not so."""
        return self._lost(id, attempt, max_crashes, "The trainer ended without a word", self.now_us)

    def crashed(self, id: str, attempt: int, how: str, *, max_crashes: int) -> Status | None:
        """The same, said by who watched the trainer."""
        return self._lost(id, attempt, max_crashes, how, None)

    def _lost(
        self, id: str, attempt: int, max_crashes: int, how: str, ended_before_us: int | None
    ) -> Status | None:
        now = self.now_us
        with self._store.write() as connection:
            job = _get(connection, None, id)
            if job.attempt != attempt or job.lease_until_us is None:
                return None
            if ended_before_us is not None and job.lease_until_us >= ended_before_us:
                return None
            values: dict[str, Any] = {"lease_until_us": None}
            if job.status == "running":
                values |= _after_crash(job, now, max_crashes)
                over = values["status"] == "failed"
                then = "giving up" if over else "the job is queued again, from its last checkpoint"
                add_event(connection, id, now, f"{how}; {then}", "error" if over else "warn")
            connection.execute(update(jobs).where(jobs.c.id == id).values(values))
            status: Status = values.get("status", job.status)
            return status

    def set_model(self, id: str, name: str | None) -> None:
        """Say under which name the result may be used, or that it may not any more."""
        with self._store.write() as connection:
            connection.execute(update(jobs).where(jobs.c.id == id).values(fine_tuned_model=name))

    def _decide(
        self, tenant_id: str | None, id: str, actor: Actor, status: Status,
        from_: tuple[str, ...], verb: str,
    ) -> Job:  # fmt: skip
        now = self.now_us
        with self._store.write() as connection:
            job = _get(connection, tenant_id, id)
            if job.status not in from_:
                raise Conflict(f"job {id} is {job.status}, and cannot be {_PAST[verb]}")
            finished = now if status == "cancelled" else None
            connection.execute(
                update(jobs)
                .where(jobs.c.id == id)
                .values(status=status, finished_us=finished, estimated_us=None)
            )
            add_event(connection, id, now, f"Fine-tuning job {_PAST[verb]}")
            self._audit(connection, actor, verb, id, job.tenant_id)
        return self.get(tenant_id, id)

    def _audit(
        self, connection: Connection, actor: Actor, verb: str, id: str, tenant_id: str
    ) -> None:
        action = f"finetune.{verb}"
        audit.record(connection, self._store, actor, action, id, tenant_id=tenant_id)


_PAST = {"cancel": "cancelled", "pause": "paused", "resume": "resumed"}


def new_seed() -> int:
    """For jobs that name none."""
    return secrets.randbelow(2**31)


def _mine(id: str, attempt: int) -> Update:
    return update(jobs).where(
        jobs.c.id == id, jobs.c.attempt == attempt, jobs.c.lease_until_us.is_not(None)
    )


def _after_crash(job: Job, now_us: int, max_crashes: int) -> dict[str, Any]:
    crashes = job.crashes + 1
    if crashes < max_crashes:
        return {"status": "queued", "crashes": crashes, "estimated_us": None}
    message = (
        f"the trainer died {crashes} times; `corral finetune logs {job.id}` has its last words"
    )
    error = {"code": "trainer_crashed", "message": message, "param": None}
    return {"status": "failed", "crashes": crashes, "error": error, "finished_us": now_us}


def _get(connection: Connection, tenant_id: str | None, id: str) -> Job:
    query = select(jobs).where(jobs.c.id == id[:128])
    if tenant_id is not None:
        query = query.where(jobs.c.tenant_id == tenant_id)
    if "\0" in id:
        raise Invalid("an id holds no NUL")
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"no fine-tuning job {id[:64]!r}")
    return _job(row)


def _job(row: Row[Any]) -> Job:
    return Job(**row._mapping)
