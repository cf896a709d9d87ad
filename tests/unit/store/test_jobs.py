"""Jobs in the store: one trainer at a time, states that only go where they may."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from serving.store.audit import SYSTEM, Actor, entries
from serving.store.database import Store
from serving.store.errors import Conflict, NotFound
from serving.store.job_events import Checkpoint, JobEvent, JobEvents, Progress
from serving.store.jobs import Job, JobSpec, JobStore, Outcome
from serving.store.owners import Ownership
from serving.store.registry import Registry, Version
from serving.store.tenants import TenantStore
from tests.unit.store.conftest import Opener

METHOD = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}}
SPEC = JobSpec("default", "llama", METHOD, "file-1", metadata={"a": "b"}, seed=2**31 - 1)
ME = Actor("key-1", "request-1")


@pytest.fixture
def jobs(store: Store) -> JobStore:
    return JobStore(store, lease_s=60)


def queued(jobs: JobStore) -> Job:
    job = jobs.create(SPEC, ME)
    jobs.validated(job.id)
    return jobs.get(None, job.id)


def test_what_is_created_is_found_by_its_tenant_alone(jobs: JobStore, store: Store) -> None:
    TenantStore(store).create("acme", SYSTEM)
    job = jobs.create(SPEC, ME)
    assert jobs.get("default", job.id) == job
    assert (job.status, job.method, job.metadata) == ("validating_files", METHOD, {"a": "b"})
    assert job.hyperparameters == {"n_epochs": 3}
    for call in (jobs.get, lambda t, i: jobs.cancel(t, i, ME)):
        with pytest.raises(NotFound):
            call("acme", job.id)
    assert jobs.page("acme") == []
    assert [entry.action for entry in entries(store, limit=1)] == ["finetune.create"]


def test_one_of_many_trainers_gets_the_job(jobs: JobStore, opener: Opener) -> None:
    job, got = queued(jobs), []
    stores = [JobStore(opener(), lease_s=60) for _ in range(4)]

    def begin(mine: JobStore) -> None:
        got.append(mine.begin(job.id))

    threads = [threading.Thread(target=begin, args=(mine,)) for mine in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [claimed] = [each for each in got if each is not None]
    assert (claimed.status, claimed.attempt) == ("running", 1)


def test_a_trainer_that_was_replaced_changes_nothing(store: Store) -> None:
    hasty, events = JobStore(store, lease_s=-1), JobEvents(store)
    job = queued(hasty)
    old = hasty.begin(job.id)
    assert old is not None
    assert hasty.interrupted(job.id, old.attempt, max_crashes=3) == "queued"
    new = hasty.begin(job.id)
    assert new is not None
    assert new.attempt == 2
    assert hasty.beat(job.id, old.attempt) is None
    done = Outcome("succeeded", "done", fine_tuned_model="ft:x")
    assert not hasty.finish(job.id, old.attempt, done)
    assert not events.record(job.id, old.attempt, Progress([], 10))
    assert hasty.get(None, job.id).status == "running"
    assert hasty.finish(job.id, new.attempt, done)
    assert hasty.get(None, job.id).fine_tuned_model == "ft:x"


def test_a_living_trainer_is_not_taken_for_dead(jobs: JobStore) -> None:
    job = jobs.begin(queued(jobs).id)
    assert job is not None
    assert jobs.interrupted(job.id, job.attempt, max_crashes=3) is None
    assert jobs.begin(job.id) is None


def test_after_so_many_deaths_a_job_is_given_up(store: Store) -> None:
    hasty = JobStore(store, lease_s=-1)
    id = queued(hasty).id
    for expected in ("queued", "queued", "failed"):
        job = hasty.begin(id)
        assert job is not None
        assert hasty.interrupted(id, job.attempt, max_crashes=3) == expected
    found = hasty.get(None, id)
    assert found.error is not None
    assert found.error["code"] == "trainer_crashed"
    assert found.finished_us is not None


def test_what_was_decided_meanwhile_stays(jobs: JobStore) -> None:
    job = jobs.begin(queued(jobs).id)
    assert job is not None
    assert jobs.cancel("default", job.id, ME).status == "cancelled"
    seen = jobs.beat(job.id, job.attempt)
    assert seen is not None
    assert seen.status == "cancelled"
    jobs.finish(job.id, job.attempt, Outcome("succeeded", "too late", fine_tuned_model="ft:x"))
    found = jobs.get(None, job.id)
    assert (found.status, found.fine_tuned_model, found.lease_until_us) == ("cancelled", None, None)
    assert jobs.open() == []


@pytest.mark.parametrize("decide", ["cancel", "pause", "resume"])
def test_what_is_over_stays_over(jobs: JobStore, decide: str) -> None:
    job = jobs.create(SPEC, ME)
    jobs.refuse(job.id, {"code": "x", "message": "y", "param": None})
    with pytest.raises(Conflict, match="is failed"):
        getattr(jobs, decide)("default", job.id, ME)


def test_a_paused_job_is_not_begun_until_it_is_resumed(jobs: JobStore) -> None:
    job = queued(jobs)
    jobs.pause("default", job.id, ME)
    assert jobs.begin(job.id) is None
    assert job.id not in [each.id for each in jobs.open()]
    jobs.resume("default", job.id, ME)
    assert jobs.begin(job.id) is not None


def test_the_limit_holds_and_what_is_over_does_not_count(jobs: JobStore) -> None:
    first = jobs.create(SPEC, ME, max_open=1)
    with pytest.raises(Conflict, match="1 fine-tuning jobs"):
        jobs.create(SPEC, ME, max_open=1)
    jobs.cancel("default", first.id, ME)
    jobs.create(SPEC, ME, max_open=1)


def test_events_are_stored_once_and_paged(jobs: JobStore, store: Store) -> None:
    events = JobEvents(store)
    job = jobs.begin(queued(jobs).id)
    assert job is not None
    told = [JobEvent(n, "info", "metrics", str(n), {"step": n}) for n in range(5)]
    assert events.record(job.id, job.attempt, Progress(told, 50, estimated_us=7))
    assert not events.record(job.id, job.attempt, Progress(told, 50)), "read twice"
    assert jobs.get(None, job.id).estimated_us == 7
    first = events.page(job.id, limit=3)
    assert [event.message for event in first] == ["4", "3", "2"]
    rest = events.page(job.id, after=first[-1].id)
    assert [event.message for event in rest][:2] == ["1", "0"]
    with pytest.raises(NotFound):
        events.page(job.id, after="ftevent-nonesuch")


def test_checkpoints_are_known_once(jobs: JobStore, store: Store) -> None:
    events, job = JobEvents(store), jobs.create(SPEC, ME)
    for step in (1, 2, 2):
        events.add_checkpoint(
            Checkpoint(job.id, step, step, f"n{step}", "a", str(step), {"train_loss": 0.5})
        )
    found = events.checkpoints(job.id)
    assert [(each.step, each.metrics) for each in found] == [
        (2, {"train_loss": 0.5}), (1, {"train_loss": 0.5}),
    ]  # fmt: skip
    events.forget_checkpoint("n2")
    assert [each.step for each in events.checkpoints(job.id)] == [1]


def test_versions_are_numbered_without_gaps_or_doubles(jobs: JobStore, opener: Opener) -> None:
    made = [queued(jobs) for _ in range(6)]
    stores = [JobStore(opener()) for _ in made]

    def allocate(mine: JobStore, job: Job) -> None:
        mine.allocate(job.id, "bot", ["2", "state.json"])

    pairs = zip(stores, made, strict=True)
    threads = [threading.Thread(target=allocate, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    versions = {jobs.get(None, job.id).version for job in made}
    assert versions == {"3", "4", "5", "6", "7", "8"}
    assert jobs.allocate(made[0].id, "other", []).adapter == "bot", "it stays what it was"


def test_one_owner_at_a_time(store: Store) -> None:
    first, second = (Ownership(store, "t", name, 60) for name in "ab")
    assert first.hold()
    assert first.hold()
    assert not second.hold()
    first.leave()
    assert second.hold()
    dead = Ownership(store, "u", "a", -1)
    assert dead.hold()
    assert Ownership(store, "u", "b", 60).hold(), "a silent holder loses it"


def test_a_change_that_fails_is_not_noted(store: Store) -> None:
    registry = Registry(store)
    registry.add(Version("bot", "1", "default", "llama", "ft:1"))

    def fail() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        registry.change("bot", "champion", "1", None, "promote", ME, fail)
    assert registry.history("bot") == []
    done: list[Path] = []
    registry.change("bot", "champion", "1", None, "promote", ME, lambda: done.append(Path("x")))
    assert [(c.version, c.actor) for c in registry.history("bot")] == [("1", "key-1")]
    registry.delete("bot", "1", ME, lambda: None)
    assert registry.all("bot") == []
    assert [each.version for each in registry.taken("bot")] == ["1"]
