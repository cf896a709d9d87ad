"""From a model's words to an answer whose every citation was checked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rag.cite.config import CiteConfig
from rag.cite.prompt import build_prompt
from rag.cite.stream import Marker, Piece, Removed, Splitter, Text
from rag.cite.verify import Entailment, verify
from rag.protocols import Generator, Message
from rag.retrieve.pack import Passage
from rag.types import Span

__all__ = ["Citation", "CitedAnswer", "CitedStream", "answer"]

_SENTENCE_END = re.compile(r"[.!?](?=\s)|\n")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Citation:
    """One passage credited with one claim."""

    passage: Passage
    claim: Span
    """In the answer's text."""
    position: int
    """Where its marker begins in the answer's text."""
    support: Span
    """The sentences that say it, in the document."""


@dataclass(frozen=True, slots=True)
class CitedAnswer:
    """An answer with nothing credited that does not support it."""

    text: str
    citations: tuple[Citation, ...]
    removed: dict[str, int]
    """What was taken out, by reason: `unknown` passage numbers, the reasons of
    `rag.cite.verify.Verdict`, and `image`, `link`, `tag`."""
    in_documents: bool
    """Whether it answers; False if it says that the documents do not."""


class CitedStream:
    """Incremental: `feed` the model's words as they come; what comes back can be shown."""

    def __init__(
        self,
        passages: Sequence[Passage],
        config: CiteConfig,
        entailment: Entailment | None = None,
    ) -> None:
        self._passages = {passage.number: passage for passage in passages}
        self._config = config
        self._entailment = entailment
        addresses = [passage.chunk.uri for passage in passages if passage.chunk.uri]
        self._splitter = Splitter(addresses, config.allowed_link_hosts)
        self._text = ""
        self._claim_from = 0
        self._claim = Span(0, 0)
        self._citations: list[Citation] = []
        self._removed: Counter[str] = Counter()

    def feed(self, words: str) -> Iterator[str | Citation]:
        """Text to show, and each citation right after its marker."""
        yield from self._take(self._splitter.feed(words))

    def finish(self) -> Iterator[str | Citation]:
        """The rest, once the model has ended."""
        yield from self._take(self._splitter.finish())

    def result(self) -> CitedAnswer:
        """The whole, after `finish`."""
        says_not = _plain(self._config.not_found) in _plain(self._text)
        return CitedAnswer(
            self._text,
            tuple(self._citations),
            dict(self._removed),
            bool(self._text) and not says_not,
        )

    def _take(self, pieces: Iterator[Piece]) -> Iterator[str | Citation]:
        for piece in pieces:
            match piece:
                case Text(text):
                    self._text += text
                    yield text
                case Removed(what):
                    self._removed[what] += 1
                case Marker(numbers):
                    yield from self._cite(numbers)

    def _cite(self, numbers: Sequence[int]) -> Iterator[str | Citation]:
        if self._text[self._claim_from :].strip():
            self._claim = self._latest_claim()
        for number in dict.fromkeys(numbers):
            citation = self._checked(number)
            if citation is not None:
                marker = f"[{number}]"
                self._text += marker
                self._citations.append(citation)
                yield marker
                yield citation
        self._claim_from = len(self._text)

    def _checked(self, number: int) -> Citation | None:
        passage = self._passages.get(number)
        if passage is None:
            self._removed["unknown"] += 1
            return None
        claim = self._claim.of(self._text)
        verdict = verify(claim, passage.chunk, self._config, self._entailment)
        if not verdict.supported or verdict.span is None:
            self._removed[verdict.reason] += 1
            return None
        return Citation(passage, self._claim, len(self._text), verdict.span)

    def _latest_claim(self) -> Span:
        """The sentence that the text ends in, or with; from the last marker if that is later."""
        end = len(self._text.rstrip())
        start = self._claim_from
        for boundary in _SENTENCE_END.finditer(self._text, start, end):
            if boundary.end() < end:
                start = boundary.end()
        while start < end and (self._text[start].isspace() or self._text[start] in ".,;:-*•"):
            start += 1
        return Span(start, end)


def answer(
    question: str,
    passages: Sequence[Passage],
    generator: Generator,
    config: CiteConfig,
    *,
    history: Sequence[Message] = (),
    entailment: Entailment | None = None,
) -> CitedAnswer:
    """Ask the model and check what it says. Without passages it is not asked."""
    if not passages:
        return CitedAnswer(config.not_found, (), {}, False)
    prompt = build_prompt(question, passages, config, history)
    stream = CitedStream(passages, config, entailment)
    for _ in stream.feed(generator.generate(prompt, max_tokens=config.max_tokens)):
        pass
    for _ in stream.finish():
        pass
    return stream.result()


def _plain(text: str) -> str:
    return _SPACE.sub(" ", text).strip(" .").casefold()
