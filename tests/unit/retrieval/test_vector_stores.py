"""`/v1/vector_stores` through the unmodified `openai` client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from openai import (
    APIStatusError,
    AsyncOpenAI,
    BadRequestError,
    NotFoundError,
    PermissionDeniedError,
)

from rag.retrieve.config import RetrieveConfig
from tests.unit.retrieval.site import SELF, Library, library, upload

ANIMALS = {
    "otters.md": "# Otters\n\nOtters hold hands while they sleep in the river.",
    "bees.txt": "Bees dance to tell where the flowers are.",
    "whales.html": "<html><body><article><p>Whales sing songs that travel through whole "
    "oceans.</p></article></body></html>",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Library]:
    async with library(tmp_path_factory.mktemp("stores")) as made:
        yield made


shared = pytest.mark.asyncio(loop_scope="module")


async def zoo(client: AsyncOpenAI) -> tuple[str, dict[str, str]]:
    """A store of three animals with attributes, and the ids of its files by name."""
    store = await client.vector_stores.create(name="zoo")
    files = {name: await upload(client, name, text) for name, text in ANIMALS.items()}
    attributes: dict[str, dict[str, Any]] = {
        "otters.md": {"legs": 4, "home": "river", "tame": False, "mass": 8.5},
        "bees.txt": {"legs": 6, "home": "hive", "tame": True, "mass": 0.0001},
        "whales.html": {"legs": 0, "home": "sea", "tame": False, "mass": 30000.0},
    }
    batch = await client.vector_stores.file_batches.create_and_poll(
        store.id,
        files=[{"file_id": id, "attributes": attributes[name]} for name, id in files.items()],
    )
    assert (batch.status, batch.file_counts.completed) == ("completed", 3), batch
    return store.id, files


@shared
async def test_upload_and_poll_then_search_and_content(running: Library) -> None:
    client = running.client("acme")
    store = await client.vector_stores.create(
        name="notes", metadata={"team": "a"}, description="what we know"
    )
    assert store.to_dict() == {
        "id": store.id, "object": "vector_store", "created_at": store.created_at, "name": "notes",
        "description": "what we know", "status": "completed", "usage_bytes": 0,
        "file_counts": dict.fromkeys(
            ("cancelled", "completed", "failed", "in_progress", "total"), 0
        ),
        "last_active_at": store.created_at, "metadata": {"team": "a"}, "expires_after": None,
        "expires_at": None,
    }  # fmt: skip
    file = await client.vector_stores.files.upload_and_poll(
        vector_store_id=store.id, file=("otters.md", ANIMALS["otters.md"].encode())
    )
    assert (file.status, file.last_error, file.object) == ("completed", None, "vector_store.file")
    assert file.usage_bytes > len("Otters hold hands")
    assert file.to_dict()["chunking_strategy"] == {
        "type": "static", "static": {"max_chunk_size_tokens": 256, "chunk_overlap_tokens": 0}
    }  # fmt: skip
    page = await client.vector_stores.search(store.id, query="who sleeps in the river?")
    [hit] = page.data
    assert (hit.file_id, hit.filename, hit.attributes) == (file.id, "otters.md", {})
    assert "hold hands" in hit.content[0].text
    assert 0 < hit.score <= 1
    content = await client.vector_stores.files.content(file.id, vector_store_id=store.id)
    assert "".join(part.text or "" for part in content.data).startswith("# Otters")
    found = await client.vector_stores.retrieve(store.id)
    assert (found.usage_bytes, found.file_counts.completed) == (file.usage_bytes, 1)


@shared
async def test_filters_nest(running: Library) -> None:
    client = running.client("acme")
    store, files = await zoo(client)
    names = {id: name for name, id in files.items()}

    async def found(filters: Any) -> set[str]:
        page = await client.vector_stores.search(
            store, query=["who sleeps", "who sings or dances"], filters=filters
        )
        return {names[hit.file_id] for hit in page.data}

    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({"type": "eq", "key": "legs", "value": 4}, {"otters.md"}),
        ({"type": "ne", "key": "home", "value": "sea"}, {"otters.md", "bees.txt"}),
        ({"type": "gt", "key": "legs", "value": 4}, {"bees.txt"}),
        ({"type": "gte", "key": "legs", "value": 4}, {"bees.txt", "otters.md"}),
        ({"type": "lt", "key": "mass", "value": 8.5}, {"bees.txt"}),
        ({"type": "lte", "key": "mass", "value": 8.5}, {"bees.txt", "otters.md"}),
        ({"type": "in", "key": "home", "value": ["sea", "hive"]}, {"bees.txt", "whales.html"}),
        ({"type": "nin", "key": "home", "value": ["sea", "hive"]}, {"otters.md"}),
        ({"type": "eq", "key": "tame", "value": True}, {"bees.txt"}),
        ({"type": "eq", "key": "no such", "value": 1}, set()),
    ]
    for filters, wanted in cases:
        assert await found(filters) == wanted, filters
    wild = {"type": "eq", "key": "tame", "value": False}
    wet = {"type": "or", "filters": [cases[0][0], {"type": "eq", "key": "home", "value": "sea"}]}
    heavy = {"type": "gt", "key": "mass", "value": 100}
    assert await found({"type": "and", "filters": [wild, wet]}) == {"otters.md", "whales.html"}
    assert await found({"type": "and", "filters": [wild, wet, heavy]}) == {"whales.html"}
    both = {"type": "or", "filters": [{"type": "and", "filters": [wild, heavy]}, cases[8][0]]}
    assert await found(both) == {"whales.html", "bees.txt"}


@shared
async def test_a_search_keeps_to_what_is_asked(running: Library) -> None:
    client = running.client("acme")
    store, files = await zoo(client)
    every = await client.vector_stores.search(store, query="bees dance flowers")
    assert every.data[0].filename == "bees.txt"
    assert [hit.score for hit in every.data] == sorted((h.score for h in every.data), reverse=True)
    one = await client.vector_stores.search(store, query="bees", max_num_results=1)
    assert [hit.file_id for hit in one.data] == [files["bees.txt"]]
    best = every.data[0].score
    strict = await client.vector_stores.search(
        store, query="bees dance flowers", ranking_options={"score_threshold": best}
    )
    assert [hit.filename for hit in strict.data] == ["bees.txt"]
    wrong: list[dict[str, Any]] = [
        {"query": ""}, {"query": []}, {"query": "x", "max_num_results": 51},
        {"query": "x", "rewrite_query": True}, {"query": "x", "sort": 1},
        {"query": "x", "filters": {"type": "like", "key": "a", "value": "b"}},
        {"query": "x", "filters": {"type": "and", "filters": []}},
        {"query": "x", "filters": {"type": "gt", "key": "home", "value": "a"}},
        {"query": "x", "ranking_options": {"score_threshold": 2}},
    ]  # fmt: skip
    for body in wrong:
        with pytest.raises(BadRequestError):
            await client.post(f"/vector_stores/{store}/search", body=body, cast_to=object)


@shared
async def test_attributes_change_and_files_leave(running: Library) -> None:
    client = running.client("acme")
    store, files = await zoo(client)
    otters = files["otters.md"]
    changed = await client.vector_stores.files.update(
        otters, vector_store_id=store, attributes={"home": "bank"}
    )
    assert changed.attributes == {"home": "bank"}
    bank: Any = {"type": "eq", "key": "home", "value": "bank"}
    for _ in range(200):
        found = await client.vector_stores.search(store, query="otters", filters=bank)
        if found.data:
            break
    assert [(hit.file_id, hit.attributes) for hit in found.data] == [(otters, {"home": "bank"})]
    gone = await client.vector_stores.files.delete(otters, vector_store_id=store)
    assert (gone.id, gone.deleted, gone.object) == (otters, True, "vector_store.file.deleted")
    page = await client.vector_stores.search(store, query="otters hold hands")
    assert otters not in [hit.file_id for hit in page.data]
    with pytest.raises(NotFoundError):
        await client.vector_stores.files.retrieve(otters, vector_store_id=store)
    assert (await client.files.retrieve(otters)).id == otters
    await client.files.delete(files["bees.txt"])
    page = await client.vector_stores.search(store, query="bees dance")
    assert [hit.filename for hit in page.data] == ["whales.html"]
    again = await client.vector_stores.files.create_and_poll(otters, vector_store_id=store)
    assert (again.status, again.attributes) == ("completed", None)
    page = await client.vector_stores.search(store, query="otters hold hands")
    assert page.data[0].file_id == otters


@shared
async def test_pages_go_both_ways(running: Library) -> None:
    client = running.client("pager")
    ids = [(await client.vector_stores.create(name=f"s{n}")).id for n in range(5)]
    assert [s.id async for s in client.vector_stores.list(limit=2)] == ids[::-1]
    assert [s.id async for s in client.vector_stores.list(limit=2, order="asc")] == ids
    page = await client.vector_stores.list(limit=2, after=ids[3])
    assert [s.id for s in page.data] == [ids[2], ids[1]]
    assert (page.has_more, page.to_dict()["first_id"], page.to_dict()["last_id"]) == (
        True,
        ids[2],
        ids[1],
    )
    back = await client.vector_stores.list(limit=2, before=ids[1])
    assert ([s.id for s in back.data], back.has_more) == ([ids[3], ids[2]], True)
    empty = await client.vector_stores.list(after=ids[0])
    assert (empty.data, empty.has_more, empty.to_dict()["last_id"]) == ([], False, None)
    files = [await upload(client, f"{n}.txt", f"number {n}") for n in range(3)]
    batch = await client.vector_stores.file_batches.create_and_poll(ids[0], file_ids=files)
    listed = client.vector_stores.files.list(ids[0], limit=1, order="asc", filter="completed")
    assert [f.id async for f in listed] == files
    mine = client.vector_stores.file_batches.list_files(batch.id, vector_store_id=ids[0], limit=2)
    assert [f.id async for f in mine] == files[::-1]
    none = await client.vector_stores.files.list(ids[0], filter="failed")
    assert none.data == []


@shared
async def test_files_that_cannot_be_read_say_why(running: Library) -> None:
    client = running.client("acme")
    store = await client.vector_stores.create()
    binary = await upload(client, "a.bin", bytes(range(256)) * 20)
    broken = await upload(client, "a.pdf", b"%PDF-1.7\nnothing of the kind")
    blank = await upload(client, "a.txt", "  \n ")
    fine = await upload(client, "b.txt", "sound")
    batch = await client.vector_stores.file_batches.create_and_poll(
        store.id, file_ids=[binary, broken, blank, fine]
    )
    assert (batch.file_counts.failed, batch.file_counts.completed) == (3, 1)
    codes = {}
    for id in (binary, broken, blank):
        file = await client.vector_stores.files.retrieve(id, vector_store_id=store.id)
        assert file.last_error is not None
        assert file.last_error.message
        codes[id] = file.last_error.code
        with pytest.raises(BadRequestError, match="completed"):
            await client.vector_stores.files.content(id, vector_store_id=store.id)
    assert codes == {binary: "unsupported_file", broken: "invalid_file", blank: "invalid_file"}


@shared
async def test_passages_have_the_size_that_was_asked(running: Library) -> None:
    client = running.client("acme")
    store = await client.vector_stores.create()
    text = " ".join(f"word{n}" for n in range(900))
    small = await client.vector_stores.files.create_and_poll(
        await upload(client, "long.txt", text), vector_store_id=store.id,
        chunking_strategy={
            "type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 20}
        },
    )  # fmt: skip
    parts = await client.vector_stores.files.content(small.id, vector_store_id=store.id)
    lengths = [len((part.text or "").split()) for part in parts.data]
    assert len(lengths) > 9
    assert max(lengths) <= 100
    large = await client.vector_stores.files.create_and_poll(
        await upload(client, "long.txt", text), vector_store_id=store.id,
        chunking_strategy={
            "type": "static", "static": {"max_chunk_size_tokens": 800, "chunk_overlap_tokens": 400}
        },
    )  # fmt: skip
    parts = await client.vector_stores.files.content(large.id, vector_store_id=store.id)
    assert len(parts.data) in (2, 3)
    page = await client.vector_stores.search(store.id, query="word450", max_num_results=1)
    assert "word450" in page.data[0].content[0].text
    for size, overlap in ((99, 0), (4097, 0), (100, 51)):
        with pytest.raises(BadRequestError, match="chunk"):
            await client.vector_stores.files.create(
                file_id=small.id, vector_store_id=store.id,
                chunking_strategy={
                    "type": "static",
                    "static": {"max_chunk_size_tokens": size, "chunk_overlap_tokens": overlap},
                },
            )  # fmt: skip


@shared
async def test_stores_change_expire_and_go(running: Library) -> None:
    client = running.client("acme")
    store = await client.vector_stores.create(
        name="old", expires_after={"anchor": "last_active_at", "days": 2}
    )
    assert store.last_active_at is not None
    assert store.expires_at == store.last_active_at + 2 * 86_400
    changed = await client.vector_stores.update(store.id, name="new", metadata={"a": "b"})
    assert (changed.name, changed.metadata) == ("new", {"a": "b"})
    assert changed.expires_after is not None
    kept = await client.vector_stores.update(store.id, expires_after=None)
    assert (kept.name, kept.expires_after, kept.expires_at) == ("new", None, None)
    file = await upload(client, "x.txt", "something to find")
    await client.vector_stores.files.create_and_poll(file, vector_store_id=store.id)
    running.retrieval.stores.change(
        "acme", store.id, {"expires_days": -1}, SELF
    )  # as if it had been idle
    ended = await client.vector_stores.retrieve(store.id)
    assert ended.status == "expired"
    with pytest.raises(BadRequestError, match="expired"):
        await client.vector_stores.search(store.id, query="something")
    with pytest.raises(BadRequestError, match="expired"):
        await client.vector_stores.files.create(file_id=file, vector_store_id=store.id)
    gone = await client.vector_stores.delete(store.id)
    assert gone.to_dict() == {"id": store.id, "object": "vector_store.deleted", "deleted": True}
    with pytest.raises(NotFoundError):
        await client.vector_stores.retrieve(store.id)


@shared
async def test_batches_are_asked_for_in_one_way_and_can_be_cancelled(running: Library) -> None:
    client = running.client("acme")
    store = await client.vector_stores.create()
    file = await upload(client, "x.txt", "something")
    batches = client.vector_stores.file_batches
    with pytest.raises(BadRequestError, match="either"):
        await batches.create(store.id, file_ids=[file], files=[{"file_id": file}])
    with pytest.raises(BadRequestError, match="twice"):
        await batches.create(store.id, file_ids=[file, file])
    with pytest.raises(NotFoundError, match="no file"):
        await batches.create(store.id, file_ids=["file-nothing"])
    batch = await batches.create_and_poll(store.id, file_ids=[file])
    assert batch.object == "vector_store.files_batch"
    with pytest.raises(BadRequestError, match="nothing to cancel"):
        await batches.cancel(batch.id, vector_store_id=store.id)
    many = [await upload(client, f"{n}.txt", f"text {n}") for n in range(4)]
    begun = await batches.create(store.id, file_ids=many)
    try:
        ended = await batches.cancel(begun.id, vector_store_id=store.id)
        assert ended.status == "cancelled"
        assert ended.file_counts.in_progress == 0
    except BadRequestError:  # the worker was quicker
        ended = await batches.retrieve(begun.id, vector_store_id=store.id)
        assert ended.file_counts.completed == 4


@shared
async def test_another_tenant_sees_nothing(running: Library) -> None:
    ours, theirs = running.client("ours"), running.client("theirs")
    store, files = await zoo(ours)
    file = files["bees.txt"]
    own = await theirs.vector_stores.create()
    stolen: list[Any] = [
        theirs.vector_stores.retrieve(store),
        theirs.vector_stores.update(store, name="mine"),
        theirs.vector_stores.search(store, query="bees"),
        theirs.vector_stores.files.retrieve(file, vector_store_id=store),
        theirs.vector_stores.files.content(file, vector_store_id=store),
        theirs.vector_stores.files.update(file, vector_store_id=store, attributes={}),
        theirs.vector_stores.files.delete(file, vector_store_id=store),
        theirs.vector_stores.files.create(file_id=file, vector_store_id=own.id),
        theirs.vector_stores.file_batches.create(own.id, file_ids=[file]),
        theirs.vector_stores.delete(store),
    ]
    for call in stolen:
        with pytest.raises(NotFoundError):
            await call
    assert [s.id async for s in theirs.vector_stores.list()] == [own.id]
    page = await theirs.vector_stores.search(own.id, query="bees dance")
    assert page.data == []
    assert (await ours.vector_stores.retrieve(store)).name == "zoo"
    page = await ours.vector_stores.search(store, query="bees dance")
    assert page.data[0].file_id == file


@shared
async def test_a_key_uses_the_stores_that_it_is_allowed(running: Library) -> None:
    all_of_it = running.client("acme")
    open_one = await all_of_it.vector_stores.create(name="open-1")
    closed = await all_of_it.vector_stores.create(name="closed")
    limited = running.client("acme", stores=["open-*"])
    assert [s.id async for s in limited.vector_stores.list()] == [open_one.id]
    await limited.vector_stores.search(open_one.id, query="x")
    with pytest.raises(NotFoundError):
        await limited.vector_stores.search(closed.id, query="x")
    await limited.vector_stores.create(name="open-2")
    refused: list[Any] = [
        limited.vector_stores.create(name="other"),
        limited.vector_stores.create(),
        limited.vector_stores.update(open_one.id, name="closed too"),
    ]
    for call in refused:
        with pytest.raises(PermissionDeniedError):
            await call
    by_id = running.client("acme", stores=[closed.id])
    assert [s.id async for s in by_id.vector_stores.list()] == [closed.id]


async def test_what_one_gateway_has_begun_the_next_one_ends(tmp_path: Path) -> None:
    async with library(tmp_path) as first:
        client = first.client()
        store = await client.vector_stores.create(name="kept")
        done = await client.vector_stores.files.create_and_poll(
            await upload(client, "a.txt", "written before"), vector_store_id=store.id
        )
        assert done.status == "completed"
        first.retrieval._worker.stop()  # type: ignore[union-attr]
        late = await upload(client, "b.txt", "written after")
        await client.vector_stores.files.create(file_id=late, vector_store_id=store.id)
    async with library(tmp_path) as second:
        client = second.client()
        file = await client.vector_stores.files.poll(late, vector_store_id=store.id)
        assert file.status == "completed"
        page = await client.vector_stores.search(store.id, query="written")
        assert {hit.file_id for hit in page.data} == {done.id, late}


async def test_a_served_model_reranks_unless_it_is_asked_not_to(tmp_path: Path) -> None:
    search = RetrieveConfig(rerank_weight=1)  # by the reranker alone
    async with library(tmp_path, rerank_model="embedder", search=search) as running:
        client = running.client()
        store, _ = await zoo(client)
        query = "whales sing songs that travel"
        page = await client.vector_stores.search(store, query=query)
        assert (page.data[0].filename, page.data[0].score) == ("whales.html", 1.0)
        assert page.data[-1].score == 0.0  # the worst of what the reranker saw
        plain = await client.vector_stores.search(
            store, query=query, ranking_options={"ranker": "none"}
        )
        assert plain.data[0].filename == "whales.html"
        assert plain.data[-1].score > 0


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"model": "nothing"}, "serves no model 'nothing'"),
        ({"model": None}, "serves no embedding model"),
        ({"rerank_model": "nothing"}, "serves no model 'nothing': correct retrieval.rerank_model"),
    ],
)
async def test_a_stack_that_cannot_embed_says_so(
    tmp_path: Path, settings: dict[str, Any], fault: str
) -> None:
    async with library(tmp_path, **settings) as running:
        with pytest.raises(APIStatusError, match=fault) as caught:
            await running.client().vector_stores.create()
        assert caught.value.status_code == 403
