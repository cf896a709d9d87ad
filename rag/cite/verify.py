"""Does a passage say what an answer claims? Cheap checks that a false citation fails: its words
stand together in the passage, every number and name of the claim is there, and neither side negates
what the other affirms. An entailment model can be asked on top.

These checks are necessary, not sufficient: a claim may recombine a passage's own words into
something that it does not say. `Entailment` is for that.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from rag.cite.config import CiteConfig
from rag.types import Chunk, Span

__all__ = ["Entailment", "Verdict", "verify"]

_WORD = re.compile(r"\w+(?:['\u2019]\w+)?")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_SENTENCE = re.compile(r"[^\n.!?]+(?:[.!?](?!\s|\Z)[^\n.!?]*)*[.!?]*")
_NEGATION = re.compile(r"\b(?:not|no|never|neither|nor|none|cannot|without)\b|n['\u2019]t\b", re.I)
_WINDOW = 3
_NEGATED_OVERLAP = 0.75


class Entailment(Protocol):
    """A natural-language inference model, or a judge."""

    def entails(self, premise: str, claim: str) -> float:
        """The probability that `premise` says `claim`."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one check."""

    supported: bool
    reason: str
    """`supported`, or what is missing: `empty`, `overlap`, `number`, `unit`, `name`,
    `negation`, `entailment`."""
    overlap: float = 0.0
    """Share of the claim's content words in the best sentences."""
    span: Span | None = None
    """Those sentences, in the document."""


def verify(
    claim: str, chunk: Chunk, config: CiteConfig, entailment: Entailment | None = None
) -> Verdict:
    """Check `claim` against the passage. Its title and headings count for names."""
    words = _content(claim)
    if not words:
        return Verdict(False, "empty")
    overlap, window = _best_window(words, chunk.text)
    if window is None or overlap < config.min_overlap:
        return Verdict(False, "overlap", overlap)
    span = Span(chunk.span.start + window.start, chunk.span.start + window.end)
    said = window.of(chunk.text)
    if not _numbers(claim) <= _numbers(said):
        return Verdict(False, "number", overlap, span)
    known = {_stem(w) for w in _words(f"{chunk.text} {chunk.title} {' '.join(chunk.heading_path)}")}
    if not _names(claim) <= known:
        return Verdict(False, "name", overlap, span)
    if not _units(claim) <= _content(said):
        return Verdict(False, "unit", overlap, span)
    if _negated_otherwise(claim, words, _nearest(words, said)):
        return Verdict(False, "negation", overlap, span)
    if entailment is not None and entailment.entails(chunk.text, claim) < config.min_entailment:
        return Verdict(False, "entailment", overlap, span)
    return Verdict(True, "supported", overlap, span)


def _best_window(words: set[str], text: str) -> tuple[float, Span | None]:
    """The fewest consecutive sentences, at most three, that have the most of `words`."""
    sentences = [m.span() for m in _SENTENCE.finditer(text) if m.group().strip()]
    held = [_content(text[start:end]) for start, end in sentences]
    best, where = 0.0, None
    for size in range(1, _WINDOW + 1):
        for at in range(len(sentences) - size + 1):
            share = len(words & set().union(*held[at : at + size])) / len(words)
            if share > best:
                best, where = share, Span(sentences[at][0], sentences[at + size - 1][1])
    return best, where


def _nearest(words: set[str], text: str) -> str:
    """The one sentence of `text` that has the most of `words`."""
    sentences = [m.group() for m in _SENTENCE.finditer(text)]
    return max(sentences, key=lambda s: len(words & _content(s)), default=text)


def _negated_otherwise(claim: str, words: set[str], sentence: str) -> bool:
    """Whether one of the two negates and the other does not; or both do, but perhaps of different
    things, since too few of the claim's words are in that one sentence."""
    denies, denied = bool(_NEGATION.search(claim)), bool(_NEGATION.search(sentence))
    if denies != denied:
        return True
    return denies and len(words & _content(sentence)) / len(words) < _NEGATED_OVERLAP


def _content(text: str) -> set[str]:
    return {_stem(word) for word in _words(text) if word not in _stop_words()}


@cache
def _stop_words() -> frozenset[str]:
    path = Path(__file__).with_name("stopwords.txt")
    return frozenset(path.read_text(encoding="utf-8").split())


def _words(text: str) -> list[str]:
    plain = unicodedata.normalize("NFKC", text).casefold()
    return [re.sub(r"['\u2019]s?\Z", "", word) for word in _WORD.findall(plain)]


def _stem(word: str) -> str:
    """Plurals and verb endings off; only ever compared with another stem."""
    for ending in ("ies", "ing", "ed", "es", "s", "ly", "e", "y"):
        if len(word) > len(ending) + 3 and word.endswith(ending):
            return word[: -len(ending)]
    return word


def _numbers(text: str) -> set[str]:
    """Digits without grouping: "1,000" and "1000" are one number."""
    return {_plain_number(number) for number in _NUMBER.findall(text)}


def _units(text: str) -> set[str]:
    """Content words right after a number: "600 miles" is not "600 kilometres"."""
    found = re.findall(r"\d\s+([^\W\d_]+)", text)
    return {_stem(w) for word in found for w in _words(word) if w not in _stop_words()}


def _plain_number(number: str) -> str:
    grouped = re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", number)
    plain = number.replace(",", "") if grouped else number.replace(",", ".")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def _names(text: str) -> set[str]:
    """Words with a capital inside a sentence: the first word's is the sentence's own."""
    words = [(m.start(), m.group()) for m in _WORD.finditer(text)]
    return {
        stem
        for at, (start, word) in enumerate(words)
        if word[0].isupper()
        and ((word.isupper() and len(word) > 1) or (at > 0 and text[start - 2] not in ".!?:\n"))
        for stem in [_stem(re.sub(r"['\u2019]s?\Z", "", word.casefold()))]
        if word.casefold() not in _stop_words()
    }
