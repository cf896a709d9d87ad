"""One configuration over labelled questions: every metric that the labels allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from configs import StrictModel
from rag.cite.answer import CitedAnswer
from rag.evaluate import metrics
from rag.evaluate.answers import (
    Judge,
    answer_relevancy,
    exact_match,
    f1,
    faithfulness,
    grounding_similarity,
)
from rag.evaluate.intervals import Estimate, estimate
from rag.evaluate.labelled import Question
from rag.protocols import Embedder
from rag.retrieve.pack import Passage
from rag.retrieve.retriever import Retriever
from rag.types import Hit, Scope, Span

__all__ = ["Evaluation", "documents_of", "evaluate_answers", "evaluate_retrieval", "ranking"]

Ask = Callable[[str, Sequence[Passage]], CitedAnswer]


class Evaluation(StrictModel):
    """Values by metric, one a question that has the labels for it, in the questions' order."""

    name: str
    values: dict[str, list[float]]

    def estimates(self) -> dict[str, Estimate]:
        """Each metric's mean and 95% interval."""
        return {name: estimate(values) for name, values in self.values.items()}


def evaluate_retrieval(
    name: str, retriever: Retriever, scope: Scope, questions: Sequence[Question], k: int = 10
) -> Evaluation:
    """nDCG@k, recall@k, MRR@k, context precision@k, and span recall and precision over `k` hits."""
    values: dict[str, list[float]] = {}
    for question in questions:
        hits = retriever.search(scope, question.question, limit=k * 3).hits
        for metric, value in ranking(question, hits, k).items():
            values.setdefault(metric, []).append(value)
    return Evaluation(name=name, values=values)


def ranking(question: Question, hits: Sequence[Hit], k: int) -> dict[str, float]:
    """One question's metrics."""
    found: dict[str, float] = {}
    if any(grade > 0 for grade in question.relevant.values()):
        ranked = documents_of(hits, question.relevant)
        found[f"nDCG@{k}"] = metrics.ndcg(ranked, question.relevant, k)
        found[f"recall@{k}"] = metrics.recall(ranked, question.relevant, k)
        found[f"MRR@{k}"] = metrics.reciprocal_rank(ranked, question.relevant, k)
        found[f"context_precision@{k}"] = metrics.context_precision(ranked, question.relevant, k)
    if question.spans:
        wanted = [(span.document, span.characters) for span in question.spans]
        names = {span.document: 1 for span in question.spans}
        have: list[tuple[str, Span]] = [
            (_labelled_name(hit.chunk.uri, names), hit.chunk.span) for hit in hits[:k]
        ]
        found[f"span_recall@{k}"] = metrics.span_recall(have, wanted)
        found[f"span_precision@{k}"] = metrics.span_precision(have, wanted)
    return found


def documents_of(hits: Sequence[Hit], labels: Mapping[str, int]) -> list[str]:
    """Documents in the order of their best hit, by the labels' names."""
    return list(dict.fromkeys(_labelled_name(hit.chunk.uri, labels) for hit in hits))


def evaluate_answers(
    name: str,
    retriever: Retriever,
    scope: Scope,
    questions: Sequence[Question],
    ask: Ask,
    *,
    embedder: Embedder,
    judge: Judge | None = None,
) -> Evaluation:
    """Exact match and F1 where there are reference answers; faithfulness and answer relevancy with
    a judge; grounding_similarity, and how many citations were kept and removed, always."""
    values: dict[str, list[float]] = {}
    for question in questions:
        passages = retriever.passages(scope, retriever.search(scope, question.question))
        answered = ask(question.question, passages)
        for metric, value in _answer_metrics(question, answered, passages, embedder, judge).items():
            values.setdefault(metric, []).append(value)
    return Evaluation(name=name, values=values)


def _answer_metrics(
    question: Question,
    answered: CitedAnswer,
    passages: Sequence[Passage],
    embedder: Embedder,
    judge: Judge | None,
) -> dict[str, float]:
    context = [passage.chunk.text for passage in passages]
    text = answered.text
    found = {
        "grounding_similarity": grounding_similarity(text, context, embedder),
        "citations": float(len(answered.citations)),
        "citations_removed": float(sum(answered.removed.values())),
        "answered": float(answered.in_documents),
    }
    if question.answers:
        found["exact_match"] = exact_match(text, question.answers)
        found["F1"] = f1(text, question.answers)
    if judge is not None:
        faithful = faithfulness(text, context, judge)
        if faithful is not None:
            found["faithfulness"] = faithful
        found["answer_relevancy"] = answer_relevancy(question.question, text, judge, embedder)
    return found


def _labelled_name(uri: str, labels: Mapping[str, int]) -> str:
    """The label that means this URI: itself, or its end after a slash."""
    if uri in labels:
        return uri
    return next((name for name in labels if uri.endswith("/" + name)), uri)
