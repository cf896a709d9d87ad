"""Every refusal is an OpenAI error object with the right status; /v1/messages has Anthropic's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.integration.conftest import EMBEDDER, MODEL

pytestmark = pytest.mark.engine

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
LONG = "word " * 5000
BAD_UTF8 = b'{"model": "smollm2-135m", "prompt": "\xff", "max_tokens": 2}'


@dataclass(frozen=True)
class Refusal:
    """A request, and the status and words of its refusal."""

    method: str
    path: str
    status: int
    says: str
    json: Any = None
    content: bytes | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    """Expected values of `param` and `code`, where they matter."""

    def send(self, http: httpx.Client) -> httpx.Response:
        return http.request(self.method, self.path, json=self.json, content=self.content)


def chat(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**CHAT, **changes}.items() if value is not None}


BY_GATEWAY = {
    "malformed": Refusal("POST", "/v1/chat/completions", 400, "JSON", content=b"{bad"),
    "empty": Refusal("POST", "/v1/completions", 400, "JSON", content=b""),
    "cut-short": Refusal("POST", "/v1/responses", 400, "JSON", content=b'{"model": "smo'),
    "trailing": Refusal("POST", "/tokenize", 400, "JSON", content=b'{"model": "a"} {'),
    "no-object": Refusal("POST", "/v1/embeddings", 400, "object", json=["a"]),
    "deep": Refusal("POST", "/v1/completions", 400, "JSON", content=b'{"a":' + b"[" * 100_000),
    "model-number": Refusal(
        "POST", "/v1/chat/completions", 400, "model", json=chat(model=3), fields={"param": "model"}
    ),
    "stream-word": Refusal(
        "POST",
        "/v1/chat/completions",
        400,
        "stream",
        json=chat(stream="maybe"),
        fields={"param": "stream"},
    ),
    "model-missing": Refusal(
        "POST", "/tokenize", 400, "smollm2-135m", json={"prompt": "a"}, fields={"param": "model"}
    ),
    "model-unknown": Refusal(
        "POST",
        "/v1/completions",
        404,
        "did you mean smollm2-135m",
        json={"model": "smollm2", "prompt": "a"},
        fields={"code": "model_not_found", "param": "model"},
    ),
    "model-empty": Refusal("POST", "/v1/completions", 404, "", json={"model": "", "prompt": "a"}),
    "adapter-of-embedder": Refusal(
        "POST", "/v1/embeddings", 404, "adapters", json={"model": f"{EMBEDDER}:x", "input": "a"}
    ),
    "wrong-endpoint": Refusal(
        "POST", "/v1/embeddings", 400, EMBEDDER, json={"model": MODEL, "input": "Hi"}
    ),
    "chat-to-embedder": Refusal(
        "POST", "/v1/chat/completions", 400, MODEL, json=chat(model=EMBEDDER)
    ),
    "route-get": Refusal("GET", "/v1/nothing", 404, "/v1/nothing"),
    "route-post": Refusal("POST", "/v1/images/generations", 404, "/v1/images", json={}),
    "route-root": Refusal("GET", "/", 404, "GET /"),
    "method-get": Refusal("GET", "/v1/chat/completions", 405, "POST"),
    "method-post": Refusal("POST", "/v1/models", 405, "", json={}),
    "model-of-the-stack": Refusal("DELETE", "/v1/models/smollm2-135m", 403, "part of the stack"),
    "too-large": Refusal("POST", "/v1/completions", 413, "1 MiB", content=b" " * (2**20 + 1)),
    "model-card": Refusal("GET", "/v1/models/smollm2", 404, "did you mean smollm2-135m"),
}
BY_EMBEDDER = {
    "input-missing": Refusal(
        "POST", "/v1/embeddings", 400, "input", json={"model": EMBEDDER}, fields={"param": "input"}
    ),
    "input-object": Refusal(
        "POST", "/v1/embeddings", 400, "input", json={"model": EMBEDDER, "input": {"a": 1}}
    ),
    "too-long": Refusal(
        "POST",
        "/v1/embeddings",
        400,
        "maximum context length is 256",
        json={"model": EMBEDDER, "input": LONG},
        fields={"code": "context_length_exceeded"},
    ),
    "documents-missing": Refusal(
        "POST", "/v1/rerank", 400, "documents", json={"model": EMBEDDER, "query": "a"}
    ),
    "text-missing": Refusal(
        "POST", "/v1/score", 400, "text_2", json={"model": EMBEDDER, "text_1": "a"}
    ),
}
BY_ENGINE = {
    "messages-missing": Refusal(
        "POST", "/v1/chat/completions", 400, "messages", json=chat(messages=None)
    ),
    "messages-word": Refusal(
        "POST", "/v1/chat/completions", 400, "messages", json=chat(messages="Hi")
    ),
    "temperature-word": Refusal(
        "POST", "/v1/chat/completions", 400, "temperature", json=chat(temperature="hot")
    ),
    "temperature-negative": Refusal(
        "POST", "/v1/chat/completions", 400, "temperature", json=chat(temperature=-1)
    ),
    "context": Refusal(
        "POST",
        "/v1/chat/completions",
        400,
        "maximum context length is 4096",
        json=chat(messages=[{"role": "user", "content": LONG}]),
    ),
    "context-streamed": Refusal(
        "POST",
        "/v1/completions",
        400,
        "maximum context length is 4096",
        json={"model": MODEL, "prompt": LONG, "stream": True},
    ),
    "context-responses": Refusal(
        "POST",
        "/v1/responses",
        400,
        "maximum context length is 4096",
        json={"model": MODEL, "input": LONG},
    ),
    "answer-too-long": Refusal(
        "POST", "/v1/chat/completions", 400, "max_tokens", json=chat(max_tokens=50_000)
    ),
    "schema-missing": Refusal(
        "POST",
        "/v1/chat/completions",
        400,
        "json_schema",
        json=chat(response_format={"type": "json_schema"}),
    ),
    "tools-missing": Refusal(
        "POST", "/v1/chat/completions", 400, "tools", json=chat(tool_choice="required")
    ),
    "response-unknown": Refusal(
        "POST",
        "/v1/responses",
        404,
        "resp_x",
        json={"model": MODEL, "input": "Hi", "previous_response_id": "resp_x"},
    ),
    "token-word": Refusal(
        "POST", "/detokenize", 400, "tokens", json={"model": MODEL, "tokens": ["x"]}
    ),
}
BY_ANTHROPIC = {
    "unknown": Refusal(
        "POST", "/v1/messages", 404, "nothing-like-it", json=chat(model="nothing-like-it")
    ),
    "malformed": Refusal("POST", "/v1/messages", 400, "JSON", content=b"{bad"),
    "method": Refusal("GET", "/v1/messages", 405, "POST"),
    "too-large": Refusal("POST", "/v1/messages", 413, "1 MiB", content=b" " * (2**20 + 1)),
    "context": Refusal(
        "POST",
        "/v1/messages",
        400,
        "maximum context length is 4096",
        json=chat(messages=[{"role": "user", "content": LONG}]),
    ),
}


def check_openai(answer: httpx.Response, refusal: Refusal) -> dict[str, Any]:
    """The error object, after its shape, status and words were checked."""
    assert answer.status_code == refusal.status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["error"]
    error: dict[str, Any] = body["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert refusal.says in error["message"]
    assert isinstance(error["type"], str)
    assert error["param"] is None or isinstance(error["param"], str)
    assert {key: error[key] for key in refusal.fields} == refusal.fields
    return error


@contextmanager
def still_generates(http: httpx.Client) -> Iterator[None]:
    """After what happens inside, the engine must still answer."""
    yield
    answer = http.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("name", BY_GATEWAY)
def test_gateway_refuses_in_the_openai_envelope(http: httpx.Client, name: str) -> None:
    error = check_openai(BY_GATEWAY[name].send(http), BY_GATEWAY[name])
    assert error["code"] is None or isinstance(error["code"], str)


@pytest.mark.parametrize("name", BY_EMBEDDER)
def test_embedder_refuses_in_the_openai_envelope(http: httpx.Client, name: str) -> None:
    error = check_openai(BY_EMBEDDER[name].send(http), BY_EMBEDDER[name])
    assert error["type"] == "invalid_request_error"
    assert error["code"] is None or isinstance(error["code"], str)


@pytest.mark.parametrize("name", BY_ENGINE)
def test_engine_refuses_in_the_openai_envelope(http: httpx.Client, name: str) -> None:
    with still_generates(http):
        check_openai(BY_ENGINE[name].send(http), BY_ENGINE[name])


@pytest.mark.parametrize("name", BY_ENGINE)
def test_type_and_code_of_the_engine_are_those_of_openai(http: httpx.Client, name: str) -> None:
    error = check_openai(BY_ENGINE[name].send(http), BY_ENGINE[name])
    assert error["type"] in ("invalid_request_error", "not_found_error")
    assert error["code"] is None or isinstance(error["code"], str)


def test_text_that_is_no_utf8_is_refused_in_the_envelope(http: httpx.Client) -> None:
    refusal = Refusal("POST", "/v1/completions", 400, "UTF-8", content=BAD_UTF8)
    check_openai(refusal.send(http), refusal)


@pytest.mark.parametrize("name", BY_ANTHROPIC)
def test_messages_are_refused_in_the_anthropic_envelope(http: httpx.Client, name: str) -> None:
    refusal = BY_ANTHROPIC[name]
    answer = refusal.send(http)
    assert answer.status_code == refusal.status, answer.text
    body = answer.json()
    assert body.keys() == {"type", "error"}
    assert body["type"] == "error"
    assert body["error"].keys() == {"type", "message"}
    assert refusal.says in body["error"]["message"]


def test_wrong_types_in_messages_are_refused_in_the_anthropic_envelope(http: httpx.Client) -> None:
    answer = http.post("/v1/messages", json=chat(messages="Hi"))
    assert answer.status_code == 400
    assert answer.json()["type"] == "error"
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_health_and_readiness_are_told_apart(http: httpx.Client) -> None:
    assert http.get("/health").json() == {"status": "ok"}
    ready = http.get("/ready").json()
    assert ready["ready"] is True
    assert {name: model["replicas"] for name, model in ready["models"].items()} == {
        MODEL: 1,
        EMBEDDER: 1,
    }
