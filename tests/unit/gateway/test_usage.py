from __future__ import annotations

import json
from typing import Any

import pytest

from serving.gateway.usage import usage_of_answer, usage_of_stream, without_usage_chunk
from serving.usage import TokenUsage


def event(payload: dict[str, Any], name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(payload, separators=(',', ':'))}\n\n".encode()


CHAT = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
CACHED = CHAT | {"prompt_tokens_details": {"cached_tokens": 8}}
RESPONSES = {
    "input_tokens": 9,
    "output_tokens": 4,
    "input_tokens_details": {"cached_tokens": 8},
    "output_tokens_details": {"reasoning_tokens": 0},
}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (CHAT, TokenUsage(9, 0, 4)),
        (CACHED, TokenUsage(9, 8, 4)),
        (CHAT | {"prompt_tokens_details": None}, TokenUsage(9, 0, 4)),
        (RESPONSES, TokenUsage(9, 8, 4)),
        (
            {"input_tokens": 1, "cache_read_input_tokens": 8, "output_tokens": 4},
            TokenUsage(9, 8, 4),
        ),
        (
            {
                "input_tokens": 1,
                "cache_read_input_tokens": 0,
                "cache_creation_input_tokens": 8,
                "output_tokens": 4,
            },
            TokenUsage(9, 0, 4),
        ),
        (
            {
                "input_tokens": 1,
                "cache_read_input_tokens": 3,
                "cache_creation_input_tokens": 5,
                "output_tokens": 4,
            },
            TokenUsage(9, 3, 4),
        ),
        ({"prompt_tokens": 7, "total_tokens": 7}, TokenUsage(7, 0, 0)),
        ({"total_tokens": 7}, TokenUsage(7, 0, 0)),
    ],
)
def test_every_spelling_of_usage_is_read(usage: dict[str, Any], expected: TokenUsage) -> None:
    assert usage_of_answer(json.dumps({"id": "x", "usage": usage}).encode()) == expected
    assert usage_of_stream([event({"choices": [], "usage": usage})]) == expected
    whole = event(
        {"type": "response.completed", "response": {"usage": usage}}, "response.completed"
    )
    assert usage_of_stream([whole]) == expected


def test_the_last_usage_of_a_stream_counts_however_it_was_cut() -> None:
    stream = (
        event({"choices": [{"delta": {"content": "a"}}], "usage": None})
        + event({"choices": [], "usage": CHAT | {"completion_tokens": 1}})
        + event({"choices": [], "usage": CHAT})
        + b"data: [DONE]\n\n"
    )
    for size in (1, 7, 50, len(stream)):
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert usage_of_stream(pieces) == TokenUsage(9, 0, 4)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b'{"usage":null}', b'{"usage":{"prompt_tokens":"x"}}']
)
def test_an_answer_that_does_not_say_is_none(body: bytes) -> None:
    assert usage_of_answer(body) is None
    assert usage_of_stream([b"data: " + body + b"\n\n"]) is None
    assert usage_of_stream([]) is None


def test_text_that_looks_like_usage_is_not_taken_for_it() -> None:
    lie = '"usage":{"prompt_tokens":0,"completion_tokens":0}'
    body = {"choices": [{"message": {"content": lie}}], "usage": CHAT, "tools": [{"usage": {}}]}
    assert usage_of_answer(json.dumps(body).encode()) == TokenUsage(9, 0, 4)
    stream = [event({"choices": [], "usage": CHAT}), event({"choices": [{"text": lie}]})]
    assert usage_of_stream(stream) == TokenUsage(9, 0, 4)


def test_the_chunk_that_was_not_asked_for_is_left_out() -> None:
    words = event({"choices": [{"delta": {"content": "hi"}}]})
    usage = event({"choices": [], "usage": CHAT})
    done = b"data: [DONE]\n\n"
    assert without_usage_chunk(words + usage + done) == words + done
    assert without_usage_chunk(usage + done) == done
    assert without_usage_chunk(usage) == b""
    assert without_usage_chunk(words) == words
