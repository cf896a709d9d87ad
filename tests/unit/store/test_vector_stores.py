"""Vector stores' tables: whose they are, pages, turns, and what counts of a worker's work."""

from __future__ import annotations

import pytest

from serving.store.audit import Actor
from serving.store.blobs import BlobStore
from serving.store.database import Store
from serving.store.errors import Conflict, NotFound
from serving.store.tenants import TenantStore
from serving.store.vector_files import VectorFiles
from serving.store.vector_rows import FileSpec, Page, StoreSpec
from serving.store.vector_stores import VectorStores

SELF = Actor("test")


def made(store: Store, *files: str, tenant: str = "default") -> str:
    id = VectorStores(store).create(StoreSpec(tenant, "n", metadata={"a": "b"}), SELF).id
    VectorFiles(store).add(id, [FileSpec(file, f"{file}.txt", {"x": 1.5}) for file in files])
    return id


def test_a_store_is_its_tenants(store: Store) -> None:
    stores = VectorStores(store)
    id = made(store, "file-a")
    found = stores.get("default", id)
    assert (found.metadata, found.counts.in_progress, found.expired) == ({"a": "b"}, 1, False)
    with pytest.raises(NotFound):
        stores.get("other", id)
    with pytest.raises(NotFound):
        stores.delete("other", id, SELF)
    stores.delete("default", id, SELF)
    with pytest.raises(NotFound):
        stores.get("default", id)
    assert stores.page("default", Page()).data == []
    assert stores.ended() == [("default", id)]
    stores.emptied(id)
    assert stores.ended() == []
    with pytest.raises(NotFound):
        VectorFiles(store).get(id, "file-a")


def test_what_has_expired_is_emptied_and_stays_as_expired(store: Store) -> None:
    stores = VectorStores(store)
    id = made(store, "file-a")
    stores.change("default", id, {"expires_days": 1}, SELF)
    assert stores.ended() == []
    stores.change("default", id, {"expires_days": -1}, SELF)
    assert stores.get("default", id).expired
    assert stores.ended() == [("default", id)]
    stores.emptied(id)
    assert stores.ended() == []
    found = stores.get("default", id)
    assert (found.expired, found.counts.total) == (True, 0)


def test_work_for_an_older_revision_does_not_count(store: Store) -> None:
    files = VectorFiles(store)
    id = made(store, "file-a")
    [task] = files.tasks(10)
    files.describe(id, "file-a", {"x": 2})
    assert not files.done(task, status="completed")
    [again] = files.tasks(10)
    assert (again.work, again.file.attributes) == ("ingest", {"x": 2})
    assert files.done(again, status="completed", usage_bytes=7)
    assert files.tasks(10) == []
    assert files.get(id, "file-a").status == "completed"
    files.describe(id, "file-a", None)
    assert [task.work for task in files.tasks(10)] == ["describe"]
    files.remove(id, "file-a")
    with pytest.raises(NotFound):
        files.get(id, "file-a")
    [last] = files.tasks(10)
    assert (last.work, last.deleted) == ("remove", True)
    files.add(id, [FileSpec("file-a", "a")])
    assert not files.done(last)
    assert [task.work for task in files.tasks(10)] == ["ingest"]


def test_tenants_take_turns_and_what_failed_comes_last(store: Store) -> None:
    TenantStore(store).create("zeta", SELF)
    first = made(store, "file-a", "file-b")
    second = made(store, "file-c", tenant="zeta")
    files = VectorFiles(store)
    tasks = files.tasks(10)
    assert [task.file.file_id for task in tasks] == ["file-a", "file-b"]
    assert {task.store_id for task in tasks} == {first}
    assert {task.store_id for task in files.tasks(10, "default")} == {second}
    assert {task.store_id for task in files.tasks(10, "zeta")} == {first}
    files.tried(tasks[0])
    assert [task.file.file_id for task in files.tasks(10)] == ["file-b", "file-a"]


def test_a_batch_is_cancelled_where_it_is_not_done(store: Store) -> None:
    files = VectorFiles(store)
    id = made(store)
    batch = files.add(id, [FileSpec("file-a", "a"), FileSpec("file-b", "b")], batch=True)
    assert batch is not None
    files.done(files.tasks(10)[0], status="completed")
    cancelled = files.cancel(id, batch)
    assert (cancelled.counts.completed, cancelled.counts.cancelled) == (1, 1)
    assert cancelled.cancelled_us is not None
    [task] = files.tasks(10)
    assert (task.work, task.deleted) == ("remove", False)
    files.done(task)
    assert files.get(id, "file-b").status == "cancelled"
    done = files.add(id, [FileSpec("file-c", "c")], batch=True)
    assert done is not None
    files.done(files.tasks(10)[0], status="failed", error_code="invalid_file")
    with pytest.raises(Conflict):
        files.cancel(id, done)
    with pytest.raises(NotFound):
        files.batch(id, "vsfb_none")


def test_pages_of_files(store: Store) -> None:
    files = VectorFiles(store)
    ids = [f"file-{letter}" for letter in "cabed"]
    id = made(store, *ids)

    def page(**given: object) -> tuple[list[str], bool]:
        found = files.page(id, Page(**given))  # type: ignore[arg-type]
        return [file.file_id for file in found.data], found.has_more

    assert page(limit=2) == (["file-d", "file-e"], True)
    assert page(limit=5, newest_first=False) == (ids, False)
    assert page(limit=2, after="file-e") == (["file-b", "file-a"], True)
    assert page(limit=2, after="file-a") == (["file-c"], False)
    assert page(limit=2, before="file-c") == (["file-b", "file-a"], True)
    assert page(limit=2, before="file-b") == (["file-d", "file-e"], False)
    assert page(limit=2, newest_first=False, before="file-e") == (["file-a", "file-b"], True)


def test_deleted_uploads_leave_their_stores(store: Store, tmp_path: object) -> None:
    blobs, files = BlobStore(store, f"{tmp_path}/blobs"), VectorFiles(store)
    kept, gone = (blobs.put("default", [b"x"], name=n, purpose="p").id for n in "ab")
    assert list(blobs.named("default", [kept, gone, "file-x"])) == [kept, gone]
    assert blobs.named("other", [kept]) == {}
    id = made(store, kept, gone)
    for task in files.tasks(10):
        files.done(task, status="completed")
    assert set(files.searchable(id, [kept, gone])) == {kept, gone}
    blobs.delete("default", gone)
    assert set(files.searchable(id, [kept, gone])) == {kept}
    files.sweep()
    assert [(task.file.file_id, task.work) for task in files.tasks(10)] == [(gone, "remove")]
