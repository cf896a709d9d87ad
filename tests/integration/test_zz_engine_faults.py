"""An engine that stops, with the real one. Last, as it is restarted."""

from __future__ import annotations

import signal
import time
from contextlib import suppress

import httpx
import psutil
import pytest

from serving.processes import marked
from serving.runtime import runtime_directory
from tests.integration.conftest import MODEL
from tests.integration.stack import Stack

pytestmark = pytest.mark.engine
REPLACED_S = 30.0
RESTARTED_S = 150.0


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
        json={"model": MODEL, "prompt": "The capital of France is", "max_tokens": 4},
        timeout=RESTARTED_S,
    )
    assert answer.status_code == 200
    assert "Paris" in answer.json()["choices"][0]["text"]
