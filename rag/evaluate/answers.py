"""Metrics of answers. Those that need a judge say so in their arguments; without one,
`grounding_similarity` is what can be had, and it is a similarity, not faithfulness."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from rag.protocols import Embedder, Generator, Message

__all__ = [
    "GeneratorJudge",
    "Judge",
    "answer_relevancy",
    "exact_match",
    "f1",
    "faithfulness",
    "grounding_similarity",
]

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_MARKER = re.compile(r"\s*\[\d+(?:\s*,\s*\d+)*\]")
_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+")


class Judge(Protocol):
    """A model that reads: a language model, or a natural-language inference model."""

    def claims(self, answer: str) -> list[str]:
        """The statements that the answer makes, each on its own."""
        ...

    def supported(self, claim: str, context: Sequence[str]) -> bool:
        """Whether the passages say it."""
        ...

    def questions(self, answer: str, count: int) -> list[str]:
        """Questions that the answer would be an answer to; fewer if it evades."""
        ...


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1 if the answer is one of the references, as SQuAD normalises them, else 0."""
    return float(any(_normalised(answer) == _normalised(one) for one in references))


def f1(answer: str, references: Sequence[str]) -> float:
    """The best harmonic mean of word precision and recall with a reference, as in SQuAD."""
    return max((_f1(_normalised(answer), _normalised(one)) for one in references), default=0.0)


def faithfulness(answer: str, context: Sequence[str], judge: Judge) -> float | None:
    """Supported claims / claims; None for an answer that claims nothing."""
    claims = judge.claims(_MARKER.sub("", answer))
    if not claims:
        return None
    return sum(judge.supported(claim, context) for claim in claims) / len(claims)


def answer_relevancy(
    question: str, answer: str, judge: Judge, embedder: Embedder, count: int = 3
) -> float:
    """Mean cosine of the question with `count` questions that the judge derives from the answer
    (Es et al., 2023); a question that it cannot derive counts 0."""
    derived = judge.questions(_MARKER.sub("", answer), count)[:count]
    if not derived:
        return 0.0
    vectors = embedder.encode([question, *derived], "query")
    return float((vectors[1:] @ vectors[0]).sum()) / count


def grounding_similarity(answer: str, context: Sequence[str], embedder: Embedder) -> float:
    """Mean over the answer's sentences of the greatest cosine with a sentence of the context."""
    said = _sentences(_MARKER.sub("", answer))
    known = [sentence for passage in context for sentence in _sentences(passage)]
    if not said or not known:
        return 0.0
    vectors = embedder.encode([*said, *known])
    return float((vectors[: len(said)] @ vectors[len(said) :].T).max(axis=1).mean())


class GeneratorJudge:
    """`Judge` by prompting a language model. Its verdicts are worth what the model is worth."""

    def __init__(self, generator: Generator, max_tokens: int = 256) -> None:
        self._generator = generator
        self._max_tokens = max_tokens

    def claims(self, answer: str) -> list[str]:
        rule = "List every claim the text makes as a sentence of its own, one a line."
        return self._lines(rule, answer)

    def supported(self, claim: str, context: Sequence[str]) -> bool:
        rule = "Do the passages say that the claim is true? Answer yes or no."
        passages = "\n\n".join(context)
        reply = self._ask(rule, f"Passages:\n{passages}\n\nClaim: {claim}")
        return reply.casefold().lstrip("*\"' ").startswith("yes")

    def questions(self, answer: str, count: int) -> list[str]:
        rule = f"Write {count} questions that the text answers, one a line; none if it evades."
        return [line for line in self._lines(rule, answer) if line.endswith("?")]

    def _lines(self, rule: str, text: str) -> list[str]:
        lines = (
            re.sub(r"^\s*(?:[-*•]|\d+[.)])\s*", "", x) for x in self._ask(rule, text).split("\n")
        )
        return [line.strip() for line in lines if line.strip()]

    def _ask(self, rule: str, text: str) -> str:
        messages = (Message("system", rule), Message("user", text))
        return self._generator.generate(messages, max_tokens=self._max_tokens)


def _sentences(text: str) -> list[str]:
    return [sentence.strip() for sentence in _SENTENCES.split(text) if sentence.strip()]


def _normalised(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _f1(answer: str, reference: str) -> float:
    said, wanted = answer.split(), reference.split()
    if not said or not wanted:
        return float(said == wanted)
    common = sum((Counter(said) & Counter(wanted)).values())
    return 2 * common / (len(said) + len(wanted))
