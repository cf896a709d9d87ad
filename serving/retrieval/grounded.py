"""An answer of `/v1/responses` that was grounded in passages: searched for, cited, checked.

The engine hears of no search: it gets passages in its instructions. What comes back is given the
search's item and the citations that hold, whole or as the events come.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from rag.cite.answer import Citation, CitedStream
from rag.cite.config import CiteConfig
from rag.cite.prompt import build_prompt
from rag.retrieve.pack import Passage
from serving.retrieval.finding import FoundPassage
from serving.retrieval.library import file_of
from serving.store.secret import new_id

_END = b"\n\n"
_FINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})


@dataclass(frozen=True)
class Grounding:
    """What one request is answered from."""

    question: str
    found: Sequence[FoundPassage]
    passages: Sequence[Passage]
    cite: CiteConfig
    shown: Mapping[str, Any]
    """Fields of the response as the client sent them: `tools`, `tool_choice`, `instructions`."""
    with_results: bool
    """Whether the search's item lists what was found."""
    id: str = field(default_factory=lambda: new_id("fs"))

    def instructions(self, given: str | None) -> str:
        """For the engine: the client's own, then the passages and the rules for using them."""
        system = build_prompt(self.question, self.passages, self.cite)[0].content
        return system if not given else f"{given}\n\n{system}"

    def whole(self, body: bytes) -> bytes:
        """A plain answer's body."""
        response = msgspec.json.decode(body)
        texts: dict[tuple[int, int], _CitedText] = {}
        for number, item in enumerate(response.get("output") or ()):
            for place, part in enumerate(item.get("content") or ()):
                if part.get("type") == "output_text":
                    cited = texts[number, place] = _CitedText(self)
                    for _ in [*cited.feed(part["text"]), *cited.finish()]:
                        pass
        return msgspec.json.encode(self.respond(response, texts))

    def respond(
        self, response: dict[str, Any], texts: Mapping[tuple[int, int], _CitedText]
    ) -> dict[str, Any]:
        """The response with the search before it and checked texts in it. Keys of `texts` are the
        engine's numbers of item and part."""
        output = [
            _checked(item, number, texts)
            for number, item in enumerate(response.get("output") or ())
        ]
        done = bool(output) or response.get("status") != "in_progress"
        call = [self.call("completed")] if done else []
        return {**response, **self.shown, "output": call + output}

    def call(self, status: str) -> dict[str, Any]:
        """The search as an item of the output."""
        results = None
        if self.with_results and status == "completed":
            results = [
                {
                    "file_id": one.file.file_id,
                    "filename": one.file.filename,
                    "score": one.hit.score,
                    "attributes": dict(one.file.attributes or {}),
                    "text": one.hit.chunk.text,
                }
                for one in self.found
            ]
        return {
            "id": self.id, "type": "file_search_call", "status": status,
            "queries": [self.question], "results": results,
        }  # fmt: skip

    def annotation(self, citation: Citation) -> dict[str, Any]:
        """OpenAI's citation of a file."""
        id = file_of(citation.passage.chunk)
        names = {one.file.file_id: one.file.filename for one in self.found}
        return {
            "type": "file_citation", "file_id": id, "filename": names[id],
            "index": citation.position,
        }  # fmt: skip


class _CitedText:
    """One text of the answer: what may be shown of it, and its citations."""

    def __init__(self, grounding: Grounding) -> None:
        self._grounding = grounding
        self._stream = CitedStream(grounding.passages, grounding.cite)
        self.text = ""
        self.annotations: list[dict[str, Any]] = []

    def feed(self, words: str) -> Iterator[str | dict[str, Any]]:
        """Text to show, and annotations. Where nothing was found, nothing is believed."""
        if self._grounding.passages:
            yield from self._kept(self._stream.feed(words))

    def finish(self) -> Iterator[str | dict[str, Any]]:
        """The rest."""
        if self._grounding.passages:
            yield from self._kept(self._stream.finish())
        else:
            self.text = self._grounding.cite.not_found
            yield self.text

    def _kept(self, pieces: Iterator[str | Citation]) -> Iterator[str | dict[str, Any]]:
        for piece in pieces:
            if isinstance(piece, str):
                self.text += piece
                yield piece
            else:
                self.annotations.append(self._grounding.annotation(piece))
                yield self.annotations[-1]

    def part(self, part: Mapping[str, Any]) -> dict[str, Any]:
        """A content part with this text."""
        return {**part, "text": self.text, "annotations": self.annotations}


class CitedEvents:
    """Server-sent events of a streamed answer, rewritten as they come."""

    def __init__(self, grounding: Grounding) -> None:
        self._grounding = grounding
        self._buffer = b""
        self._number = 0
        self._searched = False
        self._texts: dict[tuple[int, int], _CitedText] = {}

    def feed(self, piece: bytes) -> bytes:
        """What can be sent on after another piece of the engine's answer."""
        *events, self._buffer = (self._buffer + piece).split(_END)
        return b"".join(self._rewritten(event) for event in events)

    def rest(self) -> bytes:
        """What is left at the end: nothing, of a sound answer."""
        rest, self._buffer = self._buffer, b""
        return rest

    def _rewritten(self, event: bytes) -> bytes:
        data = next((line[5:] for line in event.split(b"\n") if line.startswith(b"data:")), b"")
        try:
            payload = msgspec.json.decode(data)
        except msgspec.DecodeError:
            return event + _END  # [DONE], or a comment
        if not isinstance(payload, dict) or "type" not in payload:
            return event + _END
        return b"".join(self._encoded(each) for each in self._events(payload))

    def _encoded(self, payload: dict[str, Any]) -> bytes:
        numbered = {**payload, "sequence_number": self._number}
        self._number += 1
        kind = str(payload["type"]).encode()
        return b"event: " + kind + b"\ndata: " + msgspec.json.encode(numbered) + _END

    def _events(self, payload: dict[str, Any]) -> Iterator[dict[str, Any]]:
        kind = payload["type"]
        if "output_index" in payload or kind in _FINAL:
            yield from self._search()
        if "response" in payload:
            response = self._grounding.respond(payload["response"], self._texts)
            yield {**payload, "response": response}
            return
        if "output_index" not in payload:
            yield payload
            return
        number, place = payload["output_index"], payload.get("content_index", 0)
        moved = {**payload, "output_index": number + 1}
        match kind:
            case "response.output_text.delta":
                text = self._texts.setdefault((number, place), _CitedText(self._grounding))
                yield from self._shown(moved, text.feed(payload["delta"]))
            case "response.output_text.done":
                text = self._texts.setdefault((number, place), _CitedText(self._grounding))
                yield from self._shown(moved, text.finish())
                yield {**moved, "text": text.text, "logprobs": []}
            case "response.content_part.done" if (number, place) in self._texts:
                yield {**moved, "part": self._texts[number, place].part(payload["part"])}
            case "response.output_item.done":
                yield {**moved, "item": _checked(payload["item"], number, self._texts)}
            case _:
                yield moved

    def _search(self) -> Iterator[dict[str, Any]]:
        """The search's own events, before everything of the answer."""
        if self._searched:
            return
        self._searched = True
        place = {"output_index": 0, "item_id": self._grounding.id}
        added, done = self._grounding.call("in_progress"), self._grounding.call("completed")
        yield {"type": "response.output_item.added", "output_index": 0, "item": added}
        for state in ("in_progress", "searching", "completed"):
            yield {"type": f"response.file_search_call.{state}", **place}
        yield {"type": "response.output_item.done", "output_index": 0, "item": done}

    def _shown(
        self, event: Mapping[str, Any], pieces: Iterator[str | dict[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        place = {name: event[name] for name in ("item_id", "output_index", "content_index")}
        text = self._texts[event["output_index"] - 1, event["content_index"]]
        for piece in pieces:
            if isinstance(piece, str):
                yield {
                    "type": "response.output_text.delta", **place, "delta": piece, "logprobs": [],
                }  # fmt: skip
            else:
                yield {
                    "type": "response.output_text.annotation.added", **place,
                    "annotation_index": text.annotations.index(piece), "annotation": piece,
                }  # fmt: skip


def _checked(
    item: Mapping[str, Any], number: int, texts: Mapping[tuple[int, int], _CitedText]
) -> dict[str, Any]:
    """An item of the engine's with the texts that were checked in place of its own."""
    if not item.get("content"):
        return dict(item)
    parts = [
        texts[number, place].part(part) if (number, place) in texts else part
        for place, part in enumerate(item["content"])
    ]
    return {**item, "content": parts}
