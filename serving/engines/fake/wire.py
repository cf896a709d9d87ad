"""How answers look on the wire, streamed and whole: chat and plain completions.

Each wire is made for one request. A stream is `opening()` with the first token,
`delta()` for each token, and `closing()` after the last: the chunks of OpenAI's
and Anthropic's APIs in the form that vLLM gives them. What stays the same in every
chunk is encoded once, so that a token costs one concatenation.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii
from typing import Any, Protocol

from serving.engines.fake.requests import Answer, Ask

__all__ = ["ChatWire", "CompletionWire", "Wire", "around", "event"]


class Wire(Protocol):
    """One answer in one API's format."""

    def opening(self) -> bytes:
        """Events before the first token."""
        ...

    def delta(self, index: int, token: str, last: bool) -> bytes:
        """The event that carries one token of choice `index`."""
        ...

    def closing(self) -> bytes:
        """Events after the last token."""
        ...

    def whole(self) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        ...


def data(payload: Mapping[str, Any]) -> bytes:
    """A server-sent event without a name."""
    return b"data: %b\n\n" % json.dumps(payload, separators=(",", ":")).encode()


def event(payload: Mapping[str, Any]) -> bytes:
    """A server-sent event named after its `type`."""
    return b"event: %b\n%b" % (payload["type"].encode(), data(payload))


def around(encoded: bytes) -> tuple[bytes, bytes]:
    """The parts of an event before and after the string `@` that stands for the token."""
    before, _, after = encoded.rpartition(b'"@"')
    return before, after


class _OpenAIWire:
    """What chat and plain completions share."""

    object_: str
    chunk_object: str

    def __init__(self, ask: Ask, answer: Answer, model: str, prefix: str) -> None:
        self._ask = ask
        self._answer = answer
        self._head = {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "object": self.chunk_object,
            "created": int(time.time()),
            "model": model,
        }
        self._parts = [around(self._chunk(self._choice(i, False))) for i in range(ask.n)]

    def _choice(self, index: int, last: bool) -> dict[str, Any]:
        raise NotImplementedError

    def _message(self) -> dict[str, Any]:
        raise NotImplementedError

    def _chunk(self, *choices: dict[str, Any]) -> bytes:
        return data({**self._head, "choices": choices})

    def _end(self) -> dict[str, Any]:
        return {
            "logprobs": None,
            "finish_reason": self._answer.finish,
            "stop_reason": self._answer.stop_reason,
        }

    def delta(self, index: int, token: str, last: bool) -> bytes:
        before, after = (
            around(self._chunk(self._choice(index, True))) if last else self._parts[index]
        )
        return before + encode_basestring_ascii(token).encode() + after

    def closing(self) -> bytes:
        if not self._ask.include_usage:
            return b"data: [DONE]\n\n"
        return data({**self._head, "choices": [], "usage": self._usage()}) + b"data: [DONE]\n\n"

    def whole(self) -> dict[str, Any]:
        choices = [{"index": i, **self._message(), **self._end()} for i in range(self._ask.n)]
        return {
            **self._head,
            "object": self.object_,
            "choices": choices,
            "usage": self._usage(),
        }

    def _usage(self) -> dict[str, int]:
        completion = len(self._answer.tokens) * self._ask.n
        return {
            "prompt_tokens": self._answer.prompt_tokens,
            "total_tokens": self._answer.prompt_tokens + completion,
            "completion_tokens": completion,
        }


class ChatWire(_OpenAIWire):
    """`/v1/chat/completions`."""

    object_ = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(self, ask: Ask, answer: Answer, model: str) -> None:
        super().__init__(ask, answer, model, "chatcmpl")

    def opening(self) -> bytes:
        delta = {"role": "assistant", "content": ""}
        choices = (
            {"index": i, "delta": delta, "logprobs": None, "finish_reason": None}
            for i in range(self._ask.n)
        )
        return b"".join(self._chunk(choice) for choice in choices)

    def _choice(self, index: int, last: bool) -> dict[str, Any]:
        end = self._end() if last else {"logprobs": None, "finish_reason": None}
        return {"index": index, "delta": {"content": "@"}, **end}

    def _message(self) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": self._answer.text}}


class CompletionWire(_OpenAIWire):
    """`/v1/completions`."""

    object_ = "text_completion"
    chunk_object = "text_completion"

    def __init__(self, ask: Ask, answer: Answer, model: str) -> None:
        super().__init__(ask, answer, model, "cmpl")

    def opening(self) -> bytes:
        return b""

    def _choice(self, index: int, last: bool) -> dict[str, Any]:
        end = self._end() if last else {"logprobs": None, "finish_reason": None}
        return {"index": index, "text": "@", **end}

    def _message(self) -> dict[str, Any]:
        return {"text": self._answer.text}
