"""Keys of tenants of their own, what their requests used, and what was booked for them."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from tests.integration.conftest import MODEL, TIMEOUT_S
from tests.integration.stack import Stack

PATIENCE_S = 30.0
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")
T = TypeVar("T")


@dataclass(frozen=True)
class Used:
    """Tokens; those found in the cache are among the input."""

    input: int = 0
    cached: int = 0
    output: int = 0
    embedding: int = 0

    def __add__(self, other: Used) -> Used:
        return Used(
            self.input + other.input,
            self.cached + other.cached,
            self.output + other.output,
            self.embedding + other.embedding,
        )


@dataclass(frozen=True)
class Booked:
    """Entries of the ledger for one endpoint and outcome."""

    endpoint: str
    status: str
    requests: int
    used: Used


class Tenant:
    """A key of a tenant, both new, and the stack it is for."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._admin = httpx.Client(base_url=stack.url, headers=stack.headers, timeout=TIMEOUT_S)
        name = f"team-{uuid.uuid4().hex[:12]}"
        self._admin.post("/admin/tenants", json={"id": name}).raise_for_status()
        made = self._admin.post("/admin/keys", json={"tenant": name}).raise_for_status().json()
        self.key: str = made["secret"]
        self._lineage: str = made["key"]["lineage"]
        self.http = httpx.Client(
            base_url=stack.url, headers={"authorization": f"Bearer {self.key}"}, timeout=TIMEOUT_S
        )

    def close(self) -> None:
        """Close the connections."""
        self.http.close()
        self._admin.close()

    def ask(self, path: str, body: dict[str, Any], *, stream: bool = False) -> Used:
        """Send a request to a generating endpoint; what its answer says that it used."""
        if not stream:
            answer = self.http.post(path, json=body)
            assert answer.status_code == 200, answer.text
            return said(answer.json()["usage"])
        if path in ("/v1/chat/completions", "/v1/completions"):
            body = body | {"stream_options": {"include_usage": True}}
        answer = self.http.post(path, json=body | {"stream": True})
        assert answer.status_code == 200, answer.text
        usages = [found for event in events(answer.text) if (found := _usage(event))]
        return said(usages[-1])

    def booked(self, requests: int) -> list[Booked]:
        """By endpoint and outcome, once that many requests are in the ledger."""
        query = {"by": ["endpoint", "status"], "key": self._lineage}

        def rows() -> list[dict[str, Any]]:
            answer = self._admin.get("/admin/usage", params=query)
            assert answer.status_code == 200, answer.text
            found: list[dict[str, Any]] = answer.json()["data"]
            return found

        found = eventually(rows, lambda rows: sum(row["requests"] for row in rows) >= requests)
        return [_booked(row) for row in found]

    def generated(self) -> Generated:
        """What vLLM's own counters say now."""
        text = self._admin.get("/metrics").text
        return Generated(
            _counter(text, "vllm:prompt_tokens_total"),
            _counter(text, "vllm:generation_tokens_total"),
        )

    def quiet(self) -> Generated:
        """vLLM's counters, once it works for nobody."""
        names = ("vllm:num_requests_running", "vllm:num_requests_waiting")
        eventually(
            lambda: sum(_counter(self._admin.get("/metrics").text, name) for name in names),
            lambda busy: busy == 0,
        )
        return self.generated()


@dataclass(frozen=True)
class Generated:
    """Tokens since the engine started, health probes included: one in and one out each."""

    prompt: int
    generation: int

    def since(self, before: Generated) -> Generated:
        """What has been added."""
        return Generated(self.prompt - before.prompt, self.generation - before.generation)


def eventually(read: Callable[[], T], good: Callable[[T], bool]) -> T:
    """The first value that is good, or what it is when patience ends."""
    deadline = time.monotonic() + PATIENCE_S
    while not good(value := read()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return value


def request(path: str, text: str, tokens: int, question: str = "Go on.") -> dict[str, Any]:
    """A greedy request whose prompt begins with `text`, but for the tokens of a template."""
    common: dict[str, Any] = {"model": MODEL, "temperature": 0}
    turn = [{"role": "user", "content": question}]
    match path:
        case "/v1/chat/completions":
            messages = [{"role": "system", "content": text}, *turn]
            return {**common, "max_tokens": tokens, "messages": messages}
        case "/v1/completions":
            prompt = f"{text} {question}"  # where the model may find that all is said
            return {**common, "max_tokens": tokens, "prompt": prompt, "ignore_eos": True}
        case "/v1/responses":
            return {**common, "max_output_tokens": tokens, "instructions": text, "input": question}
        case "/v1/messages":
            return {**common, "max_tokens": tokens, "system": text, "messages": turn}
    raise AssertionError(path)


def events(text: str) -> Iterator[dict[str, Any]]:
    """Of a stream of server-sent events."""
    for line in text.splitlines():
        if line.startswith("data: {"):
            yield json.loads(line[6:])


def said(usage: dict[str, Any]) -> Used:
    """What an answer says that it used, in the words of its API."""
    if "prompt_tokens" in usage:
        details = usage.get("prompt_tokens_details") or {}
        cached = details.get("cached_tokens") or 0
        return Used(usage["prompt_tokens"], cached, usage.get("completion_tokens") or 0)
    if "input_tokens_details" in usage:
        cached = usage["input_tokens_details"]["cached_tokens"]
        return Used(usage["input_tokens"], cached, usage["output_tokens"])
    cached = usage.get("cache_read_input_tokens") or 0
    written = usage.get("cache_creation_input_tokens") or 0
    return Used(usage["input_tokens"] + cached + written, cached, usage["output_tokens"])


def _usage(event: dict[str, Any]) -> dict[str, Any] | None:
    found: dict[str, Any] | None = event.get("usage") or event.get("response", {}).get("usage")
    return found


def _booked(row: dict[str, Any]) -> Booked:
    group = row["group"]
    columns = ("input_tokens", "cached_tokens", "output_tokens", "embedding_tokens")
    used = Used(*(row[name] for name in columns))
    return Booked(group["endpoint"], group["status"], row["requests"], used)


def _counter(exposition: str, name: str) -> int:
    values = [
        float(line.rpartition(" ")[2])
        for line in exposition.splitlines()
        if line.startswith(f"{name}{{")
    ]
    assert values, f"vLLM has no {name}"
    return int(sum(values))
