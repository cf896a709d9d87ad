"""Clients that go away and an engine that stops, with the real engine. Last, as it restarts it."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from typing import Any

import httpx
import psutil
import pytest

from serving.processes import marked
from serving.runtime import runtime_directory
from tests.integration.conftest import MODEL
from tests.integration.stack import Stack

pytestmark = pytest.mark.engine
ABORT_S = 1.0
REPLACED_S = 30.0
RESTARTED_S = 150.0
LONG = 2000

BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Tell me a story"}]},
    "/v1/completions": {"prompt": "Once upon a time"},
    "/v1/responses": {"input": "Tell me a story", "max_output_tokens": LONG},
    "/v1/messages": {"messages": [{"role": "user", "content": "Tell me a story"}]},
}


def running(stack: Stack) -> float:
    """Requests that vLLM's scheduler holds."""
    text = httpx.get(f"{stack.url}/metrics", headers=stack.headers, timeout=30.0).text
    return sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith(("vllm:num_requests_running{", "vllm:num_requests_waiting{"))
    )


def await_running(stack: Stack, wanted: float, seconds: float) -> float:
    deadline = time.monotonic() + seconds
    while (now := running(stack)) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return now


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
@pytest.mark.parametrize("path", BODIES)
def test_a_client_that_goes_away_stops_the_engine(stack: Stack, path: str, streamed: bool) -> None:
    assert await_running(stack, 0.0, 30.0) == 0.0
    body = {"model": MODEL, "max_tokens": LONG, "stream": streamed, **BODIES[path]}
    if path == "/v1/responses":
        del body["max_tokens"]
    if path == "/v1/completions":
        body["ignore_eos"] = True
    # A plain answer takes longer than this client waits; a streamed one is cut at a line.
    patience_s = 60.0 if streamed else 0.5
    with (
        suppress(httpx.ReadTimeout),
        httpx.stream(
            "POST", f"{stack.url}{path}", json=body, headers=stack.headers, timeout=patience_s
        ) as response,
    ):
        assert response.status_code == 200, response.read()
        assert streamed
        for number, _ in enumerate(response.iter_lines()):
            if number == 5:
                break
    assert await_running(stack, 0.0, ABORT_S) == 0.0


def test_a_stopped_engine_is_replaced_and_leaves_no_process(stack: Stack) -> None:
    engines = [
        process
        for process in marked(runtime_directory(stack.home).name)
        if process.name().startswith("VLLM::")
    ]
    assert engines
    for process in engines:
        process.send_signal(signal.SIGSTOP)
    _, alive = psutil.wait_procs(engines, timeout=REPLACED_S)
    assert alive == []
    deadline = time.monotonic() + RESTARTED_S
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if httpx.get(f"{stack.url}/ready", timeout=30.0).status_code == 200:
                break
        time.sleep(0.5)
    answer = httpx.post(
        f"{stack.url}/v1/completions",
        headers=stack.headers,
        json={"model": MODEL, "prompt": "The capital of France is", "max_tokens": 4},
        timeout=RESTARTED_S,
    )
    assert answer.status_code == 200
    assert "Paris" in answer.json()["choices"][0]["text"]
