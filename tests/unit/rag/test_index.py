"""One suite over every index: the embedded engine, and the server's API (the client's in-memory
stand-in)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from qdrant_client import QdrantClient

from rag.errors import BadFilter, IndexMismatch, IndexUnavailable
from rag.index.config import Bm25Config, IndexConfig
from rag.index.edge import EdgeIndex
from rag.index.manifest import Manifest
from rag.index.open import StoredIndex
from rag.index.portable import restore, snapshot
from rag.index.server import ServerIndex
from rag.types import AllOf, AnyOf, Chunk, Compare, Filter, Query, Scope, Span

DIMENSION = 8
MANIFEST = Manifest(embedder="fake", dimension=DIMENSION, chunking="heading 256")
ALICE = Scope("alice", "handbook")
BOB = Scope("bob", "handbook")

# The stand-in says that it neither indexes payloads nor has a graph.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Payload indexes have no effect:UserWarning",
    "ignore:Local mode performs exact:UserWarning",
)

Make = Callable[[str], StoredIndex]


def chunk(text: str, document: str = "d", position: int = 0, **metadata: Any) -> Chunk:
    return Chunk(document, Span(0, len(text)), text, position, uri="file:d", metadata=metadata)


def axis(number: int) -> NDArray[np.float32]:
    row: NDArray[np.float32] = np.eye(DIMENSION, dtype=np.float32)[number]
    return row


@pytest.fixture(params=["edge", "server"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Makes an index by name; the same name is the same index while it is open."""
    made: list[StoredIndex] = []

    def build(name: str) -> StoredIndex:
        if request.param == "edge":
            made.append(EdgeIndex(tmp_path / name, IndexConfig(), MANIFEST))
        else:
            made.append(ServerIndex(IndexConfig(), MANIFEST, QdrantClient(":memory:")))
        return made[-1]

    yield build
    for index in made:
        index.close()


@pytest.fixture
def index(make: Make) -> StoredIndex:
    return make("one")


def found(index: StoredIndex, scope: Scope, filter: Filter | None = None) -> set[str]:
    query = Query(vector=axis(0), limit=50, filter=filter)
    return {hit.chunk.text for hit in index.search(scope, query)}


def test_a_chunk_comes_back_as_it_was_stored(index: StoredIndex) -> None:
    stored = Chunk(
        "d", Span(3, 8), "Größe", 2, uri="s3://b/k", title="T", context="A > B\n",
        heading_path=("A", "B"), page=7, parent_id="p",
        metadata={"tag": "x", "n": 3, "f": 0.5, "yes": True, "odd.key[]": "v"},
    )  # fmt: skip
    index.upsert(ALICE, [stored], axis(0)[None])
    assert index.get(ALICE, [stored.id, "missing"]) == [stored]
    hits = index.search(ALICE, Query(vector=axis(0), with_vectors=True))
    assert [hit.chunk for hit in hits] == [stored]
    assert hits[0].score == pytest.approx(1.0)
    assert hits[0].vector is not None
    np.testing.assert_allclose(hits[0].vector, axis(0), atol=1e-6)


def test_dense_search_ranks_by_cosine(index: StoredIndex) -> None:
    vectors = np.stack([axis(0), axis(0) + axis(1), axis(2)])
    index.upsert(ALICE, [chunk(name) for name in ("near", "between", "far")], vectors)
    hits = index.search(ALICE, Query(vector=axis(0), limit=2))
    assert [hit.chunk.text for hit in hits] == ["near", "between"]
    assert [hit.score for hit in hits] == pytest.approx([1.0, 0.5**0.5], abs=1e-5)


def test_bm25_prefers_the_rarer_word_and_stems(index: StoredIndex) -> None:
    texts = ["the cat sat", "the cat ran", "the dogs ran", "the cat slept"]
    index.upsert(ALICE, [chunk(text) for text in texts], np.eye(4, DIMENSION, dtype=np.float32))
    hits = index.search(ALICE, Query(text="cat or dog"))
    assert hits[0].chunk.text == "the dogs ran"
    assert {hit.chunk.text for hit in hits} == set(texts)


def test_bm25_weights_do_not_depend_on_other_tenants(index: StoredIndex) -> None:
    mine = [chunk("apple pie"), chunk("apple tart"), chunk("cherry pie")]
    index.upsert(ALICE, mine, np.eye(3, DIMENSION, dtype=np.float32))
    before = [hit.score for hit in index.search(ALICE, Query(text="apple cherry"))]
    others = [chunk(f"cherry {i}") for i in range(20)]
    index.upsert(BOB, others, np.ones((20, DIMENSION), np.float32))
    assert [hit.score for hit in index.search(ALICE, Query(text="apple cherry"))] == before


def test_parents_are_kept_but_never_found(index: StoredIndex) -> None:
    parent = replace(chunk("the whole apple section"), is_parent=True, id="")
    child = replace(chunk("apple"), parent_id=parent.id, id="")
    index.upsert(ALICE, [parent, child], axis(0)[None])
    assert [h.chunk for h in index.search(ALICE, Query(vector=axis(0)))] == [child]
    assert [h.chunk for h in index.search(ALICE, Query(text="apple section"))] == [child]
    assert index.get(ALICE, [parent.id]) == [parent]
    assert set(index.ids(ALICE)) == {parent.id, child.id}


def test_every_vector_needs_its_chunk(index: StoredIndex) -> None:
    with pytest.raises(ValueError, match="more vectors"):
        index.upsert(ALICE, [chunk("one")], np.eye(2, DIMENSION, dtype=np.float32))


def test_the_same_chunk_in_two_scopes_is_two_points(index: StoredIndex) -> None:
    same = chunk("shared handbook text")
    index.upsert(ALICE, [same], axis(0)[None])
    index.upsert(BOB, [same], axis(0)[None])
    index.delete(BOB, [same.id])
    assert found(index, ALICE) == {same.text}
    assert found(index, BOB) == set()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Scope("a", "b"), Scope("a", "c")),
        (Scope('a","b', "c"), Scope("a", 'b","c')),
        (Scope("", "a"), Scope("a", "")),
    ],
)
def test_scopes_that_look_alike_are_apart(index: StoredIndex, one: Scope, other: Scope) -> None:
    index.upsert(one, [chunk("mine")], axis(0)[None])
    assert found(index, other) == set()
    assert index.get(other, list(index.ids(one))) == []
    index.delete_store(other)
    assert found(index, one) == {"mine"}


def test_deleting_a_store_leaves_the_tenant_s_others(index: StoredIndex) -> None:
    other = Scope("alice", "wiki")
    for scope in (ALICE, other):
        index.upsert(scope, [chunk(scope.store)], axis(0)[None])
    index.delete_store(ALICE)
    assert (index.count(ALICE), index.count(other), index.count()) == (0, 1, 1)


def test_metadata_of_a_document_is_replaced(index: StoredIndex) -> None:
    index.upsert(
        ALICE,
        [chunk("a", "d1", old=1), chunk("b", "d2", old=1)],
        np.stack([axis(0), axis(0)]),
    )
    index.set_metadata(ALICE, "d1", {"new": "x"})
    index.set_metadata(BOB, "d2", {"new": "x"})
    assert found(index, ALICE, Compare("eq", "new", "x")) == {"a"}
    assert found(index, ALICE, Compare("eq", "old", 1)) == {"b"}


PEOPLE = [
    chunk("ann", position=1, age=30, city="Bern", member=True),
    chunk("ben", position=2, age=40.5, city="Rome", member=False),
    chunk("cid", position=3, age=50, city="Rome"),
    chunk("dot", position=4),
]


@pytest.mark.parametrize(
    ("filter", "names"),
    [
        (Compare("eq", "city", "Rome"), "ben cid"),
        (Compare("eq", "age", 30), "ann"),
        (Compare("eq", "age", 30.0), "ann"),
        (Compare("eq", "age", "30"), ""),
        (Compare("eq", "member", True), "ann"),
        (Compare("eq", "member", 1), ""),
        (Compare("ne", "city", "Rome"), "ann dot"),
        (Compare("gt", "age", 40.5), "cid"),
        (Compare("gte", "age", 40.5), "ben cid"),
        (Compare("lt", "age", 40.5), "ann"),
        (Compare("lte", "age", 40.5), "ann ben"),
        (Compare("in", "city", ("Bern", "Oslo")), "ann"),
        (Compare("in", "age", (30, 50)), "ann cid"),
        (Compare("nin", "city", ("Bern", "Oslo")), "ben cid dot"),
        (AllOf((Compare("eq", "city", "Rome"), Compare("gt", "age", 45))), "cid"),
        (AnyOf((Compare("eq", "city", "Bern"), Compare("gt", "age", 45))), "ann cid"),
        (
            AllOf((
                AnyOf((Compare("eq", "city", "Bern"), Compare("eq", "city", "Rome"))),
                AnyOf((Compare("lt", "age", 35), AllOf((Compare("ne", "member", False),)))),
            )),
            "ann cid",
        ),
    ],
)  # fmt: skip
def test_filters(index: StoredIndex, filter: Filter, names: str) -> None:
    index.upsert(ALICE, PEOPLE, np.tile(axis(0), (4, 1)))
    assert found(index, ALICE, filter) == set(names.split())


@pytest.mark.parametrize(
    "key", ["scope", "a.b", "a[]", 'quo"te', "x_61", "ключ", "", "meta.scope", "a b"]
)
def test_any_key_filters_on_metadata_alone(index: StoredIndex, key: str) -> None:
    with_key = replace(chunk("with"), metadata={key: "v"}, id="")
    index.upsert(ALICE, [with_key, chunk("without")], np.ones((2, DIMENSION), np.float32))
    assert found(index, ALICE, Compare("eq", key, "v")) == {"with"}
    assert found(index, ALICE, Compare("ne", key, "v")) == {"without"}


@pytest.mark.parametrize(
    "filter",
    [
        Compare("eq", "scope", '["bob","handbook"]'),
        Compare("ne", "scope", "x"),
        AnyOf((Compare("eq", "secret", "b"), Compare("ne", "secret", "b"))),
        AllOf((Compare("nin", "tenant", ("alice",)),)),
    ],
)
def test_no_filter_reaches_another_tenant(index: StoredIndex, filter: Filter) -> None:
    index.upsert(BOB, [chunk("bob's", secret="b")], axis(0)[None])
    index.upsert(ALICE, [chunk("alice's", secret="a")], axis(0)[None])
    assert found(index, ALICE, filter) <= {"alice's"}


@pytest.mark.parametrize(
    ("filter", "message"),
    [
        (Compare("gt", "k", "x"), "compares numbers"),
        (Compare("lt", "k", True), "compares numbers"),
        (Compare("gte", "k", float("nan")), "compares numbers"),
        (Compare("in", "k", ()), "takes a list"),
        (Compare("in", "k", "abc"), "takes a list"),
        (Compare("eq", "k", ("a",)), "takes one value"),
        (AllOf(()), "no filters"),
        (Compare("in", "k", tuple(range(2_000))), "more than"),
    ],
)
def test_a_filter_without_meaning_is_refused(
    index: StoredIndex, filter: Filter, message: str
) -> None:
    with pytest.raises(BadFilter, match=message):
        found(index, ALICE, filter)


def test_a_filter_nested_too_deep_is_refused(index: StoredIndex) -> None:
    filter: Filter = Compare("eq", "k", "v")
    for _ in range(30):
        filter = AllOf((filter,))
    with pytest.raises(BadFilter, match="nested deeper"):
        found(index, ALICE, filter)


def test_a_snapshot_restores_everything(make: Make, tmp_path: Path) -> None:
    source = make("source")
    parent = replace(chunk("whole"), is_parent=True, id="")
    source.upsert(ALICE, [parent, chunk("apple pie", n=1)], axis(0)[None])
    source.upsert(BOB, [chunk("bob's")], axis(1)[None])
    assert snapshot(source, tmp_path / "s.zip") == 3
    copy = make("copy")
    assert restore(copy, tmp_path / "s.zip") == 3
    assert found(copy, ALICE, Compare("eq", "n", 1)) == {"apple pie"}
    assert found(copy, BOB) == {"bob's"}
    assert copy.get(ALICE, [parent.id]) == [parent]
    assert [h.chunk.text for h in copy.search(ALICE, Query(text="pies"))] == ["apple pie"]
    with pytest.raises(IndexUnavailable, match="empty index"):
        restore(copy, tmp_path / "s.zip")


def test_a_damaged_snapshot_is_refused(make: Make, tmp_path: Path) -> None:
    source = make("source")
    source.upsert(ALICE, [chunk("text")], axis(0)[None])
    path = tmp_path / "s.zip"
    snapshot(source, path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(IndexUnavailable, match="not a snapshot"):
        restore(make("copy"), path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"embedder": "other"}, "embedder: the index has 'fake'"),
        ({"dimension": 4}, "dimension: the index has 8"),
        ({"chunking": "token 64"}, "chunking: the index has 'heading 256'"),
        ({"bm25": Bm25Config(k1=2)}, "bm25"),
    ],
)
@pytest.mark.parametrize("kind", ["edge", "server"])
def test_a_mismatch_is_refused_with_its_cause(
    tmp_path: Path, kind: str, change: dict[str, object], named: str
) -> None:
    client = QdrantClient(":memory:")

    def open_it(manifest: Manifest) -> StoredIndex:
        if kind == "edge":
            return EdgeIndex(tmp_path / "i", IndexConfig(), manifest)
        return ServerIndex(IndexConfig(), manifest, client)

    first = open_it(MANIFEST)
    if kind == "edge":
        first.close()
    with pytest.raises(IndexMismatch, match=named) as error:
        open_it(MANIFEST.model_copy(update=change))
    assert "index.path" in str(error.value)
    again = open_it(MANIFEST.model_copy(update={"chunking": None}))
    assert again.manifest == MANIFEST
    again.close()


def test_an_open_index_refuses_a_second_opener(tmp_path: Path) -> None:
    index = EdgeIndex(tmp_path, IndexConfig(), MANIFEST)
    with pytest.raises(IndexUnavailable, match="one process at a time"):
        EdgeIndex(tmp_path, IndexConfig(), MANIFEST)
    index.close()
    EdgeIndex(tmp_path, IndexConfig(), MANIFEST).close()


def test_a_foreign_collection_is_refused() -> None:
    client = QdrantClient(":memory:")
    client.create_collection("corral", vectors_config={})
    with pytest.raises(IndexMismatch, match="was not made by corral"):
        ServerIndex(IndexConfig(), MANIFEST, client)


def test_a_server_that_is_not_there_is_named() -> None:
    config = IndexConfig(url="http://127.0.0.1:9", timeout_s=1)
    with pytest.raises(IndexUnavailable, match=r"Qdrant at http://127\.0\.0\.1:9"):
        ServerIndex(config, MANIFEST)


@pytest.mark.parametrize(("quantization", "floor"), [("none", 0.9), ("int8", 0.9), ("binary", 0.5)])
def test_building_the_graph_loses_nothing_and_finds_the_same(
    tmp_path: Path, quantization: str, floor: float
) -> None:
    config = IndexConfig.model_validate(
        {"quantization": quantization, "hnsw": {"exact_below_kib": 1}, "oversampling": 10}
    )
    index = EdgeIndex(tmp_path, config, MANIFEST.model_copy(update={"dimension": 64}))
    vectors = np.random.default_rng(0).normal(size=(2_000, 64)).astype(np.float32)
    chunks = [chunk(f"text {i}", position=i) for i in range(2_000)]
    index.upsert(ALICE, chunks, vectors)
    assert index.outside_graph == 2_000
    index.optimize()
    index.upsert(ALICE, [chunk("late")], vectors[:1])
    assert index.outside_graph == 1
    assert index.count(ALICE) == 2_001
    overlaps = []
    for vector in vectors[:50]:
        exact = {h.chunk.id for h in index.search(ALICE, Query(vector=vector, exact=True))}
        graph = {h.chunk.id for h in index.search(ALICE, Query(vector=vector))}
        overlaps.append(len(exact & graph) / 10)
    index.close()
    assert np.mean(overlaps) > floor
    reopened = EdgeIndex(tmp_path, config, index.manifest)
    assert reopened.count(ALICE) == 2_001
    reopened.close()


def test_writes_during_a_build_survive_it(tmp_path: Path) -> None:
    index = EdgeIndex(tmp_path, IndexConfig(), MANIFEST)
    index.upsert(ALICE, [chunk("old"), chunk("gone")], np.ones((2, DIMENSION), np.float32))
    target = tmp_path / "shard-000002"
    with index.copied(target):
        index.upsert(ALICE, [chunk("new")], axis(0)[None])
        index.delete(ALICE, [chunk("gone").id])
        index.adopt(target)
    assert found(index, ALICE) == {"old", "new"}
    index.upsert(ALICE, [chunk("newer")], axis(0)[None])
    index.close()
    reopened = EdgeIndex(tmp_path, IndexConfig(), MANIFEST)
    assert found(reopened, ALICE) == {"old", "new", "newer"}
    reopened.close()


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from rag.index.config import IndexConfig
from rag.index.edge import EdgeIndex
from rag.index.manifest import Manifest
from rag.types import Chunk, Scope, Span
index = EdgeIndex(Path(sys.argv[1]), IndexConfig(), Manifest(embedder="fake", dimension=8))
for number in range(5):
    chunks = [Chunk("d", Span(0, 1), f"{number} {n}", n) for n in range(20)]
    index.upsert(Scope("alice", "handbook"), chunks, np.eye(20, 8, dtype=np.float32) + 1)
index.delete(Scope("alice", "handbook"), [chunks[0].id])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    child = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=root, check=False)
    assert child.returncode == -9
    index = EdgeIndex(tmp_path, IndexConfig(), MANIFEST.model_copy(update={"chunking": None}))
    texts = {one.text for one in index.get(ALICE, list(index.ids(ALICE)))}
    assert texts == {f"{number} {n}" for number in range(5) for n in range(20)} - {"4 0"}
    index.close()
