"""The stack without Ray, as a command, before a fake engine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serving.home import Home
from serving.runtime import admin_key

ROOT = Path(__file__).parents[2]


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pace = "models.0.engine.token_interval_s=0.01"
    command = [sys.executable, "-m", "serving.local_stack", "--config", "fake"]
    process = subprocess.Popen(
        [*command, "--set", f"gateway.port={port}", "--set", pace],
        cwd=ROOT,
        env=os.environ | {"CORRAL_HOME": str(tmp_path)},
        stderr=subprocess.PIPE,
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10.0) as client:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                client.get("/ready").raise_for_status()
                break
            except httpx.HTTPError:
                assert process.poll() is None
                time.sleep(0.05)
        client.headers["authorization"] = f"Bearer {admin_key(Home(tmp_path))}"
        yield client, process
    process.kill()
    process.communicate()


Running = tuple[httpx.Client, subprocess.Popen[bytes]]


def test_answers_through_the_gateway_and_ends_when_told(stack: Running) -> None:
    client, process = stack
    answer = client.post("/v1/completions", json={"prompt": "a b", "max_tokens": 3})
    assert answer.json()["choices"][0]["text"] == "a b a"
    assert client.get("/v1/models").json()["data"][0]["id"] == "fake"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) in (0, -signal.SIGTERM)


def test_a_client_that_leaves_ends_its_request(stack: Running) -> None:
    client, _ = stack
    body = {"prompt": "a", "max_tokens": 4000, "stream": True}
    with client.stream("POST", "/v1/completions", json=body) as answer:
        chunks = answer.iter_bytes()  # held: its end would close the answer
        next(chunks)
        _await_running(client, 1)
    _await_running(client, 0)


def test_a_faulty_configuration_is_one_line_and_status_1(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "serving.local_stack", "--config", "nothing"],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"CORRAL_HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "error no configuration named 'nothing'" in done.stderr
    assert "Traceback" not in done.stderr


def _await_running(client: httpx.Client, requests: int) -> None:
    """Return when the engine works on that many requests."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        lines = client.get("/metrics").text.splitlines()
        (gauge,) = [line for line in lines if line.startswith("vllm:num_requests_running{")]
        if float(gauge.split()[-1]) == requests:
            return
        time.sleep(0.02)
    raise AssertionError(f"the engine never worked on {requests} requests; last: {gauge}")
