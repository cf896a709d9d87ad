"""Metrics agree with their definitions and with ir-measures; intervals cover."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import ir_measures
import numpy as np
import pytest

from rag.embed.fake import FakeEmbedder
from rag.errors import SourceUnreadable
from rag.evaluate import metrics
from rag.evaluate.answers import (
    GeneratorJudge,
    answer_relevancy,
    exact_match,
    f1,
    faithfulness,
    grounding_similarity,
)
from rag.evaluate.intervals import compare, estimate
from rag.evaluate.labelled import read_questions
from rag.evaluate.report import html_page, markdown, write
from rag.evaluate.run import Evaluation
from rag.protocols import Message
from rag.types import Span


def test_rankings_score_as_ir_measures_scores_them() -> None:
    rng = random.Random(0)
    for _ in range(50):
        documents = [f"d{n}" for n in range(30)]
        relevant = {name: rng.choice([0, 0, 1, 2, 3]) for name in rng.sample(documents, 12)}
        ranked = rng.sample(documents, 20)
        qrels = [ir_measures.Qrel("q", name, grade) for name, grade in relevant.items()]
        run = [ir_measures.ScoredDoc("q", name, -at) for at, name in enumerate(ranked)]
        wanted = [ir_measures.parse_measure(name) for name in ("nDCG@10", "R@10", "RR@10")]
        theirs = ir_measures.calc_aggregate(wanted, qrels, run)
        assert metrics.ndcg(ranked, relevant, 10) == pytest.approx(theirs[wanted[0]])
        assert metrics.recall(ranked, relevant, 10) == pytest.approx(theirs[wanted[1]])
        assert metrics.reciprocal_rank(ranked, relevant, 10) == pytest.approx(theirs[wanted[2]])


def test_context_precision_weighs_early_ranks() -> None:
    relevant = {"a": 1, "b": 1}
    assert metrics.context_precision(["a", "x", "b"], relevant, 10) == pytest.approx(
        (1 + 2 / 3) / 2
    )
    assert metrics.context_precision(["x", "y"], relevant, 10) == 0


def test_spans_count_characters_once() -> None:
    wanted = [("d", Span(10, 20)), ("e", Span(0, 10))]
    found = [("d", Span(0, 15)), ("d", Span(5, 18)), ("f", Span(0, 2))]
    assert metrics.span_recall(found, wanted) == pytest.approx(8 / 20)
    assert metrics.span_precision(found, wanted) == pytest.approx(8 / 20)


def test_answers_compare_as_squad_compares_them() -> None:
    assert exact_match("The Eiffel Tower!", ["eiffel tower"]) == 1
    assert exact_match("Eiffel", ["eiffel tower"]) == 0
    assert f1("the big tower", ["eiffel tower"]) == pytest.approx(0.5)
    assert f1("", ["x"]) == 0


class Model:
    """Says what it was told to, by the word in the rule."""

    def generate(self, messages: Sequence[Message], *, max_tokens: int) -> str:
        rule, text = messages[0].content, messages[-1].content
        if "List every claim" in rule:
            assert "[1]" not in text
            return "- Leave is 25 days.\n- Leave is 99 days."
        if "yes or no" in rule:
            return "Yes." if "25" in text.split("Claim:")[1] else "no"
        return "How many days of leave?\nnot a question"


def test_faithfulness_is_the_share_of_supported_claims() -> None:
    judge = GeneratorJudge(Model())
    assert faithfulness("Leave is 25 days [1]. Leave is 99 days.", ["25 days"], judge) == 0.5


def test_relevancy_compares_derived_questions() -> None:
    judge, embedder = GeneratorJudge(Model()), FakeEmbedder()
    same = answer_relevancy("How many days of leave?", "25", judge, embedder, count=1)
    assert same == pytest.approx(1.0, abs=1e-5)
    other = answer_relevancy("Where is Paris?", "25", judge, embedder, count=1)
    assert other < 0.9


def test_grounding_similarity_is_greatest_for_copied_sentences() -> None:
    embedder = FakeEmbedder()
    context = ["Leave is 25 days. Requests go to Maria."]
    assert grounding_similarity("Leave is 25 days. [1]", context, embedder) == pytest.approx(
        1, abs=1e-5
    )
    assert grounding_similarity("Bananas are yellow.", context, embedder) < 0.9
    assert grounding_similarity("Anything.", [], embedder) == 0


def test_intervals_cover_the_mean_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(40):
        found = estimate(rng.normal(0.5, 0.2, 60).tolist())
        covered += found.low <= 0.5 <= found.high
    assert covered >= 34


def test_a_paired_comparison_sees_a_small_but_steady_difference() -> None:
    rng = np.random.default_rng(2)
    base = rng.uniform(0, 1, 100)
    better = compare((base + 0.02 + rng.normal(0, 0.01, 100)).tolist(), base.tolist())
    assert better.difference.low > 0
    assert better.p_value < 0.01
    same = compare(base.tolist(), base.tolist())
    assert (same.difference.mean, same.p_value) == (0, 1)
    with pytest.raises(ValueError, match="paired"):
        compare([1.0], [1.0, 2.0])


def test_questions_are_read_and_faults_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    good = {"question": "q?", "relevant": {"a.md": 1}, "answers": ["x"]}
    path.write_text(json.dumps(good) + "\n\n" + json.dumps({**good, "grades": 1}))
    with pytest.raises(SourceUnreadable, match=r"q\.jsonl:3: grades"):
        read_questions(path)
    path.write_text(json.dumps(good))
    assert read_questions(path)[0].relevant == {"a.md": 1}


def test_a_report_compares_the_first_two(tmp_path: Path) -> None:
    one = Evaluation(name="a|b", values={"nDCG@10": [0.5, 0.7, 0.9]})
    two = Evaluation(name="<two>", values={"nDCG@10": [0.4, 0.6, 0.9]})
    text = markdown([one, two])
    assert "a\\|b | 0.700" in text
    assert "+0.067" in text
    page = html_page([one, two])
    assert "<two>" not in page.replace("<!--", "")
    assert page.count("<svg") == 2
    write([one], tmp_path)
    assert (tmp_path / "report.html").exists()
    assert "against" not in (tmp_path / "report.md").read_text()
