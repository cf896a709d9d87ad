"""Faults of engines and replicas under a running stack of two fake replicas."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from serving.engines.fake import HANG_ENV
from serving.processes import marked
from serving.runtime import runtime_directory
from tests.adapter_files import write_adapter
from tests.integration.stack import Stack, make_home, serve

pytestmark = pytest.mark.cluster
OPTIONS = (
    *("--set", "models.0.engine.token_interval_s=0.05"),
    *("--set", "models.0.replicas.min=2"),
    *("--set", "models.0.replicas.max=2"),
    *("--set", "models.0.replicas.max_ongoing_requests=4"),
    *("--set", "models.0.replicas.max_queued_requests=4"),
)
RECOVERY_S = 60.0


@pytest.fixture(scope="module")
def hang_switch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("switch") / "hang"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, hang_switch: Path) -> Iterator[Stack]:
    home = make_home(tmp_path_factory.mktemp("faults") / "home", models=())
    os.environ[HANG_ENV] = str(hang_switch)
    try:
        with serve(home, *OPTIONS, config="fake") as stack:
            yield stack
    finally:
        del os.environ[HANG_ENV]


def complete(stack: Stack, tokens: int, *, model: str = "fake") -> httpx.Response:
    body = {"model": model, "prompt": "word", "max_tokens": tokens}
    return httpx.post(
        f"{stack.url}/v1/completions", json=body, headers=stack.headers, timeout=RECOVERY_S
    )


def replicas(stack: Stack) -> dict[str, dict[str, object]]:
    """Status of every replica by its id, from the admin route."""
    answer = httpx.get(f"{stack.url}/admin/status", headers=stack.headers, timeout=30.0)
    assert answer.status_code == 200, answer.text
    return {replica["replica"]: replica for replica in answer.json()["replicas"]}


def busy_replica(stack: Stack) -> psutil.Process:
    """The process of the replica that answers a request now."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for replica in replicas(stack).values():
            if replica["running"]:
                return psutil.Process(int(str(replica["pid"])))
    raise AssertionError("no replica is running a request")


def await_two_replicas(stack: Stack) -> None:
    deadline = time.monotonic() + RECOVERY_S
    while time.monotonic() < deadline:
        try:
            if len(replicas(stack)) == 2:
                return
        except AssertionError:
            pass  # a broadcast meets the dead replica until Serve has noticed
        time.sleep(0.5)
    raise AssertionError("the second replica did not come back")


def test_a_replica_killed_before_its_answer_costs_the_client_nothing(stack: Stack) -> None:
    answers: list[httpx.Response] = []
    request = threading.Thread(target=lambda: answers.append(complete(stack, 60)))
    request.start()
    busy_replica(stack).kill()
    request.join()
    assert answers[0].status_code == 200
    assert answers[0].json()["usage"]["completion_tokens"] == 60
    await_two_replicas(stack)


def test_a_replica_killed_in_mid_stream_ends_the_stream_with_an_error(stack: Stack) -> None:
    body = {"model": "fake", "prompt": "word", "max_tokens": 100, "stream": True}
    lines: list[str] = []
    with httpx.stream(
        "POST", f"{stack.url}/v1/completions", json=body, headers=stack.headers, timeout=60.0
    ) as response:
        for line in response.iter_lines():
            lines.append(line)
            if len(lines) == 6:
                busy_replica(stack).kill()
    data = [line for line in lines if line.startswith("data: ")]
    assert "replica_lost" in data[-1]
    assert "data: [DONE]" not in data
    await_two_replicas(stack)


def test_a_client_that_gives_up_waiting_stops_the_engine(stack: Stack) -> None:
    """httpx sends head and body apart, as many clients do: HAProxy must still see it leave."""
    body = {"model": "fake", "prompt": "word", "max_tokens": 1000}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{stack.url}/v1/completions", json=body, headers=stack.headers, timeout=0.5)
    time.sleep(1.0)
    assert [replica["running"] for replica in replicas(stack).values()] == [0, 0]


def test_a_killed_gateway_is_replaced_and_its_leases_end(stack: Stack) -> None:
    """Its clients get a 5xx, or a closed connection where HAProxy had reused one."""
    outcomes: list[httpx.Response | httpx.RemoteProtocolError] = []

    def ask() -> None:
        try:
            outcomes.append(complete(stack, 1000))
        except httpx.RemoteProtocolError as exc:
            outcomes.append(exc)

    request = threading.Thread(target=ask)
    request.start()
    busy_replica(stack)
    (gateway,) = (
        process
        for process in marked(runtime_directory(stack.home).name)
        if process.name().startswith("ray::ServeRepl") and "gateway" in " ".join(process.cmdline())
    )
    gateway.kill()
    request.join()
    (outcome,) = outcomes
    if isinstance(outcome, httpx.Response):
        assert outcome.status_code >= 502
        assert outcome.json()["error"]["message"]
    deadline = time.monotonic() + RECOVERY_S
    while (answer := complete(stack, 2)).status_code != 200 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert answer.status_code == 200
    await_two_replicas(stack)
    assert [replica["running"] for replica in replicas(stack).values()] == [0, 0]


def test_overload_is_429_with_retry_after_and_nothing_is_lost(stack: Stack) -> None:
    answers: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda: answers.append(complete(stack, 40))) for _ in range(30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = sorted(answer.status_code for answer in answers)
    assert len(statuses) == 30
    assert set(statuses) == {200, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["code"] == "overloaded"
    assert complete(stack, 2).status_code == 200


def test_an_adapter_loads_on_every_replica_and_survives_their_restart(stack: Stack) -> None:
    write_adapter(stack.home.adapters / "pirate" / "1", base="fake")
    loaded = stack.corral("adapters", "load", "pirate")
    assert loaded.returncode == 0, loaded.stderr
    for replica in replicas(stack).values():
        assert replica["adapters"] == ["fake:pirate@1"]
    for replica in replicas(stack).values():
        psutil.Process(int(str(replica["pid"]))).kill()
    await_two_replicas(stack)
    answer = complete(stack, 3, model="fake:pirate")
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["text"].startswith("[fake:pirate@1]")


def test_a_hung_engine_is_replaced_within_thirty_seconds(stack: Stack, hang_switch: Path) -> None:
    await_two_replicas(stack)
    before = set(replicas(stack))
    pids = {int(str(replica["pid"])) for replica in replicas(stack).values()}
    hang_switch.touch()
    deadline = time.monotonic() + 30.0
    try:
        while time.monotonic() < deadline and any(psutil.pid_exists(pid) for pid in pids):
            time.sleep(0.2)
        assert not any(psutil.pid_exists(pid) for pid in pids)
        answer = httpx.get(f"{stack.url}/ready", timeout=30.0)
        assert answer.status_code == 503
    finally:
        hang_switch.unlink()
    await_two_replicas(stack)
    assert set(replicas(stack)).isdisjoint(before)
    assert complete(stack, 2).status_code == 200
