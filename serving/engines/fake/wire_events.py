"""How answers look on the wire in the APIs whose events have names: Responses and Messages."""

from __future__ import annotations

import time
import uuid
from json.encoder import encode_basestring_ascii
from typing import Any

from serving.engines.fake.requests import Answer, Ask
from serving.engines.fake.wire import around, event

__all__ = ["MessagesWire", "ResponsesWire"]


class ResponsesWire:
    """`/v1/responses`, with the events that `openai.types.responses` names."""

    def __init__(self, ask: Ask, answer: Answer, model: str) -> None:
        self._ask = ask
        self._answer = answer
        self._model = model
        self._id = f"resp_{uuid.uuid4().hex}"
        self._item_id = f"msg_{uuid.uuid4().hex}"
        self._created = time.time()
        self._sequence = 0
        delta = {"type": "response.output_text.delta", "delta": "@", **self._place, "logprobs": []}
        # A delta's number comes last, so that what precedes it never changes.
        self._before, after = around(event(delta))
        self._after = after.removesuffix(b"}\n\n") + b',"sequence_number":'

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": self._item_id, "output_index": 0, "content_index": 0}

    def opening(self) -> bytes:
        response = self._response("in_progress")
        added = "response.output_item.added"
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        return (
            self._numbered({"type": "response.created", "response": response})
            + self._numbered({"type": "response.in_progress", "response": response})
            + self._numbered({"type": added, "output_index": 0, "item": self._item("in_progress")})
            + self._numbered({"type": "response.content_part.added", **self._place, "part": part})
        )

    def delta(self, index: int, token: str, last: bool) -> bytes:
        number = self._sequence
        self._sequence = number + 1
        quoted = encode_basestring_ascii(token).encode()
        return b"%b%b%b%d}\n\n" % (self._before, quoted, self._after, number)

    def closing(self) -> bytes:
        text = self._answer.text
        item = self._item("completed")
        done = {"type": "response.output_text.done", **self._place, "text": text, "logprobs": []}
        part = {"type": "response.content_part.done", **self._place, "part": item["content"][0]}
        whole = self.whole()
        return (
            self._numbered(done)
            + self._numbered(part)
            + self._numbered({"type": "response.output_item.done", "output_index": 0, "item": item})
            + self._numbered({"type": "response.completed", "response": whole})
        )

    def whole(self) -> dict[str, Any]:
        cut = self._answer.finish == "length"
        prompt, output = self._answer.prompt_tokens, len(self._answer.tokens)
        return {
            **self._response("incomplete" if cut else "completed"),
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": [self._item("completed")],
            "usage": {
                "input_tokens": prompt,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": output,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": prompt + output,
            },
        }

    def _numbered(self, payload: dict[str, Any]) -> bytes:
        number = self._sequence
        self._sequence = number + 1
        return event({**payload, "sequence_number": number})

    def _item(self, status: str) -> dict[str, Any]:
        text = {"type": "output_text", "text": self._answer.text, "annotations": []}
        return {
            "id": self._item_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": [text] if status == "completed" else [],
        }

    def _response(self, status: str) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "model": self._model,
            "output": [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "max_output_tokens": self._ask.max_tokens,
            "incomplete_details": None,
            "error": None,
            "usage": None,
        }


class MessagesWire:
    """`/v1/messages` (Anthropic)."""

    def __init__(self, ask: Ask, answer: Answer, model: str) -> None:
        self._answer = answer
        self._model = model
        self._id = f"msg_{uuid.uuid4().hex}"
        delta = {"type": "text_delta", "text": "@"}
        self._before, self._after = around(
            event({"type": "content_block_delta", "index": 0, "delta": delta})
        )

    def opening(self) -> bytes:
        message = self._envelope([], {"stop_reason": None, "stop_sequence": None}, 0)
        block = {"type": "text", "text": ""}
        return event({"type": "message_start", "message": message}) + event(
            {"type": "content_block_start", "index": 0, "content_block": block}
        )

    def delta(self, index: int, token: str, last: bool) -> bytes:
        return self._before + encode_basestring_ascii(token).encode() + self._after

    def closing(self) -> bytes:
        usage = self._usage(len(self._answer.tokens))
        return (
            event({"type": "content_block_stop", "index": 0})
            + event({"type": "message_delta", "delta": self._stop(), "usage": usage})
            + event({"type": "message_stop"})
        )

    def whole(self) -> dict[str, Any]:
        block = {"type": "text", "text": self._answer.text}
        return self._envelope([block], self._stop(), len(self._answer.tokens))

    def _envelope(
        self, content: list[dict[str, str]], stop: dict[str, str | None], output: int
    ) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "content": content,
            "model": self._model,
            **stop,
            "usage": self._usage(output),
        }

    def _usage(self, output: int) -> dict[str, int]:
        return {"input_tokens": self._answer.prompt_tokens, "output_tokens": output}

    def _stop(self) -> dict[str, str | None]:
        if self._answer.stop_reason is not None:
            return {"stop_reason": "stop_sequence", "stop_sequence": self._answer.stop_reason}
        cut = self._answer.finish == "length"
        return {"stop_reason": "max_tokens" if cut else "end_turn", "stop_sequence": None}
