"""The ledger books what the engine used: what its answers say, and what its counters count."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest
from openai import OpenAI

from tests.integration.conftest import EMBEDDER, MODEL
from tests.integration.stack import Stack
from tests.integration.tenants import (
    PATHS,
    Booked,
    Generated,
    Tenant,
    Used,
    eventually,
    request,
)

pytestmark = pytest.mark.engine

TOKENS = 4
PREFIX = "Once upon a time, in a small village by the sea, there lived an old fisherman. "
STORY = "Tell me a very long story about an old fisherman and the sea, with many chapters."
LONG = 1500
STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "London"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture
def tenant(stack: Stack) -> Iterator[Tenant]:
    made = Tenant(stack)
    yield made
    made.close()


def counted(tenant: Tenant, before: Generated, used: Used) -> Generated:
    """What vLLM has counted since, less its probes, once that is what was used."""

    def since() -> Generated:
        added = tenant.generated().since(before)
        probes = added.generation - used.output
        return Generated(added.prompt - probes, added.generation - probes)

    return eventually(since, lambda now: now == Generated(used.input, used.output))


@STREAMED
@pytest.mark.parametrize("path", PATHS)
def test_what_an_answer_says_is_booked_and_is_what_the_engine_counts(
    tenant: Tenant, path: str, stream: bool
) -> None:
    before = tenant.quiet()
    text = f"{random.random()} {PREFIX * 10}"  # new to the cache, and longer than a block of it
    first = tenant.ask(path, request(path, text, TOKENS), stream=stream)
    assert (first.input > 128, first.cached, first.output) == (True, 0, TOKENS)
    assert tenant.booked(1) == [Booked(path, "complete", 1, first)]
    again = tenant.ask(path, request(path, text, TOKENS), stream=stream)
    assert (again.input, again.cached >= 128) == (first.input, True)
    assert tenant.booked(2) == [Booked(path, "complete", 2, first + again)]
    used = first + again
    assert counted(tenant, before, used) == Generated(used.input, used.output)


@STREAMED
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_several_samples_share_one_prompt(tenant: Tenant, path: str, stream: bool) -> None:
    body = request(path, PREFIX, TOKENS) | {"n": 2, "temperature": 1.0, "ignore_eos": True}
    used = tenant.ask(path, body, stream=stream)
    assert used.output == 2 * TOKENS
    assert used.input == tenant.ask(path, request(path, PREFIX, TOKENS)).input
    (row,) = tenant.booked(2)
    assert row.used.input == 2 * used.input
    assert row.used.output > used.output


@STREAMED
def test_a_tool_call_is_booked(tenant: Tenant, stream: bool) -> None:
    path = "/v1/chat/completions"
    choice = {"type": "function", "function": {"name": "get_weather"}}
    body = request(path, "Answer with tools.", 32, "What is the weather in Paris?")
    used = tenant.ask(path, body | {"tools": [WEATHER], "tool_choice": choice}, stream=stream)
    assert used.output > 2
    assert tenant.booked(1) == [Booked(path, "complete", 1, used)]


@STREAMED
@pytest.mark.parametrize("path", PATHS)
def test_a_client_that_leaves_pays_for_what_the_engine_did(
    tenant: Tenant, path: str, stream: bool
) -> None:
    prompt = tenant.ask(path, request(path, STORY, 1)).input
    tenant.booked(1)
    before = tenant.quiet()
    _leave(tenant, before, path, request(path, STORY, LONG), stream)
    (row,) = (row for row in tenant.booked(2) if row.status != "complete")
    assert (row.endpoint, row.status, row.requests) == (path, "interrupted", 1)
    assert row.used.input == prompt
    assert 1 <= row.used.output < LONG
    assert counted(tenant, before, row.used) == Generated(prompt, row.used.output)


def test_several_samples_of_a_client_that_leaves_share_one_prompt(tenant: Tenant) -> None:
    path = "/v1/completions"
    prompt = tenant.ask(path, request(path, STORY, 1)).input
    tenant.booked(1)
    before = tenant.quiet()
    body = request(path, STORY, LONG) | {"n": 2, "temperature": 1.0}
    _leave(tenant, before, path, body, stream=True)
    (row,) = (row for row in tenant.booked(2) if row.status != "complete")
    assert (row.status, row.used.input) == ("interrupted", prompt)
    everything = Used(2 * prompt, 0, row.used.output)
    assert counted(tenant, before, everything) == Generated(2 * prompt, row.used.output)


def _leave(
    tenant: Tenant, before: Generated, path: str, body: dict[str, Any], stream: bool
) -> None:
    """Close the connection once there are some tokens, whether or not the client sees them."""
    headers = {"authorization": f"Bearer {tenant.key}"}
    with closing(HTTPConnection(urlsplit(tenant.stack.url).netloc, timeout=30.0)) as connection:
        connection.request("POST", path, json.dumps(body | {"stream": stream}), headers)
        if stream:
            assert connection.getresponse().status == 200
        eventually(lambda: tenant.generated().since(before).generation, lambda n: n >= 4)


def test_embedding_and_ranking_are_booked_as_embedding_tokens(tenant: Tenant) -> None:
    texts = ["The sea is blue.", "Paris is the capital of France."]
    asked: dict[str, dict[str, Any]] = {
        "/v1/embeddings": {"input": texts},
        "/v1/rerank": {"query": "What colour is the sea?", "documents": texts},
        "/v1/score": {"text_1": "What colour is the sea?", "text_2": texts},
    }
    rows = []
    for count, (path, body) in enumerate(asked.items(), start=1):
        answer = tenant.http.post(path, json={"model": EMBEDDER, **body})
        assert answer.status_code == 200, answer.text
        tokens = answer.json()["usage"]["total_tokens"]
        assert tokens > 8
        rows.append(Booked(path, "complete", 1, Used(embedding=tokens)))
        assert tenant.booked(count) == sorted(rows, key=lambda row: row.endpoint)


def test_a_stream_tells_its_usage_only_to_who_asked(tenant: Tenant, stack: Stack) -> None:
    with OpenAI(base_url=f"{stack.url}/v1", api_key=tenant.key, max_retries=0) as client:
        turn: Any = [{"role": "user", "content": "Say hello."}]
        chats = client.chat.completions.create(
            model=MODEL, messages=turn, max_tokens=TOKENS, temperature=0, stream=True
        )
        chat = [(len(chunk.choices), chunk.usage) for chunk in chats]
        texts = client.completions.create(
            model=MODEL,
            prompt=STORY,
            max_tokens=TOKENS,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        text = [(len(chunk.choices), chunk.usage) for chunk in texts]
        assert set(chat) == set(text) == {(1, None)}
        *_, last = client.chat.completions.create(
            model=MODEL,
            messages=turn,
            max_tokens=TOKENS,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    assert last.usage is not None
    assert last.choices == []
    chat_row, text_row = tenant.booked(3)
    assert (chat_row.requests, text_row.requests) == (2, 1)
    assert chat_row.used.input == 2 * last.usage.prompt_tokens
    assert chat_row.used.output == 2 * last.usage.completion_tokens
    assert (text_row.used.input > 0, text_row.used.output) == (True, TOKENS)
