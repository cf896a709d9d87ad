"""From a question to a context: fusion, reranking, thinning out, packing, rewriting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rag.embed.fake import FakeEmbedder
from rag.errors import RagError
from rag.index.config import IndexConfig
from rag.index.edge import EdgeIndex
from rag.index.manifest import Manifest
from rag.protocols import Message, Reranker
from rag.retrieve.config import FusionConfig, RetrieveConfig, RewriteConfig
from rag.retrieve.diversity import mmr, without_duplicates
from rag.retrieve.fusion import Ranked, dbsf, fuse, rrf
from rag.retrieve.maxsim import MaxSimReranker
from rag.retrieve.pack import ends_first, pack, with_parents
from rag.retrieve.retriever import Retriever
from rag.retrieve.rewrite import rewrite
from rag.types import Chunk, Compare, Hit, Scope, Span

SCOPE = Scope("t", "s")
TEXTS = [
    "Employees receive twenty five days of annual leave.",
    "Train journeys are booked by the travel office.",
    "The canteen opens at noon and closes at two.",
    "Annual leave that is not used expires in March.",
    "annual leave that is  not used expires in march.",
]


def hit(name: str, score: float, vector: Sequence[float] | None = None) -> Hit:
    made = None if vector is None else np.array(vector, np.float32)
    return Hit(Chunk(name, Span(0, 1), name, 0, id=name), score, made)


def names(hits: Sequence[Hit]) -> list[str]:
    return [one.chunk.id for one in hits]


def test_rrf_adds_weighted_reciprocal_ranks() -> None:
    first = Ranked([hit("a", 9), hit("b", 8)])
    second = Ranked([hit("b", 1), hit("c", 0.5)], weight=2)
    assert rrf([first, second], 60) == pytest.approx(
        {"a": 1 / 61, "b": 1 / 62 + 2 / 61, "c": 2 / 62}
    )


def test_dbsf_normalises_each_list_by_its_own_distribution() -> None:
    scores = dbsf([Ranked([hit("a", 30), hit("b", 20), hit("c", 10)]), Ranked([hit("c", 5)], 2)])
    sigma = (200 / 3) ** 0.5
    assert scores == pytest.approx(
        {"a": (10 + 3 * sigma) / (6 * sigma), "b": 0.5, "c": (-10 + 3 * sigma) / (6 * sigma) + 1}
    )
    assert dbsf([Ranked([])]) == {}


@pytest.mark.parametrize("method", ["rrf", "dbsf"])
def test_a_weight_of_nothing_leaves_a_list_without_say(method: str) -> None:
    lists = [Ranked([hit("a", 2), hit("b", 1)]), Ranked([hit("b", 2), hit("a", 1)], weight=0)]
    fused = fuse(lists, FusionConfig.model_validate({"method": method}))
    assert names(fused) == ["a", "b"]


def test_near_duplicates_go_and_the_better_stays() -> None:
    hits = [hit("a", 3, [1, 0]), hit("b", 2, [0.999, 0.01]), hit("c", 1, [0, 1])]
    assert names(without_duplicates(hits, 0.97, 10)) == ["a", "c"]
    assert names(without_duplicates(hits, 1.0, 10)) == ["a", "b", "c"]
    assert names(without_duplicates(hits, 1.0, 2)) == ["a", "b"]
    same = [hit("a", 2), replace(hit("b", 1), chunk=Chunk("b", Span(0, 1), " A ", 0, id="b"))]
    assert names(without_duplicates(same, 0.9, 10)) == ["a"]


def test_mmr_prefers_what_is_new() -> None:
    hits = [hit("a", 1.0, [1, 0]), hit("b", 0.9, [1, 0.05]), hit("c", 0.5, [0, 1])]
    assert names(mmr(hits, 2, 1.0)) == ["a", "b"]
    assert names(mmr(hits, 2, 0.4)) == ["a", "c"]
    with pytest.raises(ValueError, match="vector"):
        mmr([hit("a", 1)], 1, 0.5)


def test_the_best_passages_come_at_both_ends() -> None:
    assert names(ends_first([hit(n, 0) for n in "12345"])) == ["1", "3", "5", "4", "2"]


def test_packing_keeps_to_the_budget_and_numbers_in_order() -> None:
    embedder = FakeEmbedder()
    hits = [Hit(Chunk("d", Span(0, 9), "word " * n, n), 1.0) for n in (6, 20, 3, 1)]
    config = RetrieveConfig(budget_tokens=10, ordering="best_first")
    packed = pack(hits, config, embedder)
    assert [(p.number, p.chunk.position) for p in packed] == [(1, 6), (2, 3), (3, 1)]
    assert len(pack(hits, config.model_copy(update={"limit": 1}), embedder)) == 1


class Overlap:
    """A reranker that counts common words."""

    def score(self, query: str, passages: Sequence[str]) -> list[float]:
        wanted = set(query.lower().split())
        return [float(len(wanted & set(text.lower().split()))) for text in passages]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeIndex]:
    embedder = FakeEmbedder()
    folder: Path = tmp_path_factory.mktemp("index")
    manifest = Manifest(embedder=embedder.name, dimension=embedder.dimension)
    index = EdgeIndex(folder, IndexConfig(), manifest)
    parent = Chunk("d0", Span(0, 200), "The whole section on leave.", 0, is_parent=True)
    chunks = [
        Chunk(
            f"d{n}", Span(0, len(text)), text, n, metadata={"n": n},
            parent_id=parent.id if "leave" in text else None,
        )
        for n, text in enumerate(TEXTS)
    ]  # fmt: skip
    index.upsert(SCOPE, [parent, *chunks], embedder.encode(TEXTS))
    yield index
    index.close()


def search(index: EdgeIndex, question: str, **changes: object) -> list[str]:
    config = RetrieveConfig.model_validate(changes)
    embedder = FakeEmbedder()
    rerankers: dict[str, Reranker] = {
        "maxsim": MaxSimReranker(embedder),
        "cross_encoder": Overlap(),
    }
    reranker = rerankers.get(config.rerank)
    found = Retriever(index, embedder, config, reranker=reranker).search(SCOPE, question)
    return [one.chunk.text for one in found.hits]


@pytest.mark.parametrize("mode", ["hybrid", "dense", "text"])
@pytest.mark.parametrize("rerank", ["none", "maxsim", "cross_encoder"])
def test_the_right_passage_is_found(index: EdgeIndex, mode: str, rerank: str) -> None:
    found = search(index, "When does the canteen open at noon?", mode=mode, rerank=rerank)
    assert found[0] == TEXTS[2]


def test_repeated_text_is_found_once(index: EdgeIndex) -> None:
    found = search(index, "annual leave expires in March")
    assert sum("expires" in text for text in found) == 1
    kept = search(index, "annual leave expires in March", near_duplicate=None)
    assert sum("expires" in text for text in kept) == 2


def test_a_threshold_can_leave_nothing(index: EdgeIndex) -> None:
    assert search(index, "canteen", mode="dense", score_threshold=0.99) == []


def test_parents_stand_in_for_their_children_once(index: EdgeIndex) -> None:
    config = RetrieveConfig()
    retriever = Retriever(index, FakeEmbedder(), config)
    found = retriever.search(SCOPE, "annual leave days", filter=Compare("in", "n", (0, 2, 3)))
    expanded = with_parents(found.hits, SCOPE, index)
    texts = [one.chunk.text for one in expanded]
    assert texts.count("The whole section on leave.") == 1
    assert not any("days of annual leave" in text for text in texts)
    numbers = [passage.number for passage in retriever.passages(SCOPE, found)]
    assert numbers == list(range(1, len(expanded) + 1))


def test_timings_cover_the_parts(index: EdgeIndex) -> None:
    config = RetrieveConfig(rerank="cross_encoder")
    retriever = Retriever(index, FakeEmbedder(), config, reranker=Overlap())
    timings = retriever.search(SCOPE, "canteen").timings
    assert timings.embed_s > 0
    assert timings.search_s > 0
    assert timings.rerank_s > 0


def test_a_question_longer_than_the_embedder_takes_is_cut(index: EdgeIndex) -> None:
    assert TEXTS[2] in search(index, "canteen noon " * 500)


class Model:
    """Answers by the rule it is given."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def generate(self, messages: Sequence[Message], *, max_tokens: int) -> str:
        rule, text = messages[0].content, messages[-1].content
        self.asked.append(text)
        if "without the conversation" in rule:
            return "When does the canteen open?"
        if "different ways" in rule:
            return "1. opening hours of the canteen\n\n- when is lunch\n3) one too many"
        return "The canteen opens at noon."


def test_rewriting_makes_follow_ups_stand_alone_and_adds_wordings() -> None:
    model = Model()
    history = [Message("user", "Is there a canteen?"), Message("assistant", "Yes.")]
    config = RewriteConfig(conversation=True, multi_query=2, hyde=True)
    found = rewrite("When does it open?", config, model, history)
    assert found.question == "When does the canteen open?"
    assert found.wordings == ("opening hours of the canteen", "when is lunch")
    assert found.passage == "The canteen opens at noon."
    assert "assistant: Yes." in model.asked[0]
    assert model.asked[1:] == [found.question, found.question]


def test_a_first_question_is_not_rewritten() -> None:
    model = Model()
    assert rewrite("Hello?", RewriteConfig(conversation=True), model).question == "Hello?"
    assert model.asked == []


@pytest.mark.parametrize("option", [{"multi_query": 2}, {"hyde": True}])
def test_rewritten_questions_find_the_passage(index: EdgeIndex, option: dict[str, object]) -> None:
    config = RetrieveConfig(rewrite=RewriteConfig.model_validate(option))
    retriever = Retriever(index, FakeEmbedder(), config, generator=Model())
    assert retriever.search(SCOPE, "Where is lunch?").hits[0].chunk.text == TEXTS[2]


@pytest.mark.parametrize("changes", [{"rerank": "maxsim"}, {"rewrite": {"hyde": True}}])
def test_a_missing_model_is_named_before_the_first_search(
    index: EdgeIndex, changes: dict[str, object]
) -> None:
    with pytest.raises(RagError, match=r"none is configured|no reranker is configured"):
        Retriever(index, FakeEmbedder(), RetrieveConfig.model_validate(changes))
