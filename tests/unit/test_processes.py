"""Processes are found by their mark and ended; state and ports are told truthfully."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from serving.processes import (
    MARK,
    RunState,
    clear_state,
    marked,
    port_holder,
    read_state,
    reap,
    write_state,
)

CHILD = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(600)
"""
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


@contextmanager
def started(
    instance: str, code: str, *arguments: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A marked Python process and the first line it prints."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, MARK: instance},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.fixture
def instance(request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"test-{os.getpid()}-{request.node.name}"
    yield name
    for process in marked(name):
        process.kill()


def _state(pid: int | None = None, created: float | None = None) -> RunState:
    me = psutil.Process(pid or os.getpid())
    return RunState(me.pid, created or me.create_time(), "127.0.0.1", 8000, "corral-x")


def test_marked_finds_its_own_instance_only(instance: str) -> None:
    with started(instance, "print(1, flush=True); input()") as (process, _):
        assert [found.pid for found in marked(instance)] == [process.pid]
        assert marked(instance + "-other") == []


def test_reap_ends_a_process_and_says_how_many(instance: str) -> None:
    with started(instance, "import time; print(1, flush=True); time.sleep(600)") as (process, _):
        assert reap(instance) == 1
        assert not psutil.pid_exists(process.pid)
    assert reap(instance) == 0


def test_reap_ends_children_that_ignore_sigterm_after_their_parent_died(instance: str) -> None:
    with started(instance, PARENT, CHILD) as (parent, line):
        child = psutil.Process(int(line))
        parent.kill()
        parent.wait()
        assert child.is_running()
        reap(instance, grace_s=0.2)
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_reap_leaves_its_caller_alone(instance: str) -> None:
    code = (
        "import sys; from serving.processes import reap; "
        "print(reap(sys.argv[1]), flush=True); print('alive')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, instance],
        env={**os.environ, MARK: instance},
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=True,
    )
    assert done.stdout.split() == ["0", "alive"]


def test_the_state_comes_back_as_written(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert read_state(run) is None
    state = replace(_state(), ready=True)
    write_state(run, state)
    assert read_state(run) == state
    assert [entry.name for entry in run.iterdir()] == ["serve.json"]
    clear_state(run)
    clear_state(run)
    assert read_state(run) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"strange": 1}'])
def test_a_damaged_state_is_no_state(tmp_path: Path, text: str) -> None:
    (tmp_path / "serve.json").write_text(text)
    assert read_state(tmp_path) is None


def test_this_process_is_alive() -> None:
    assert _state().alive


def test_a_recycled_pid_is_not_alive() -> None:
    assert not _state(created=psutil.Process().create_time() - 60.0).alive


def test_a_process_that_ended_is_not_alive(instance: str) -> None:
    with started(instance, "print(1, flush=True); input()") as (process, _):
        state = _state(process.pid)
        assert state.alive
        os.kill(process.pid, 9)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not state.alive, "a zombie serves nobody"
    assert not state.alive


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
        ("10.1.2.3", "http://10.1.2.3:8000"),
    ],
)
def test_the_url_can_be_reached_from_this_machine(host: str, url: str) -> None:
    assert replace(_state(), host=host).url == url


def test_a_free_port_has_no_holder() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert port_holder("127.0.0.1", port) is None


def test_the_holder_of_a_port_is_named(instance: str) -> None:
    code = (
        "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); "
        "print(s.getsockname()[1], flush=True); input()"
    )
    with started(instance, code) as (process, line):
        holder = port_holder("127.0.0.1", int(line))
        assert holder is not None
        assert f"process {process.pid}" in holder
        assert "import socket" in holder


@pytest.mark.parametrize(
    ("host", "certificate", "url"),
    [
        ("127.0.0.1", None, "http://127.0.0.1:8000"),
        ("0.0.0.0", "/x.crt", "https://127.0.0.1:8000"),
        ("::1", "/x.crt", "https://[::1]:8000"),
    ],
)
def test_the_state_knows_how_it_is_reached(host: str, certificate: str | None, url: str) -> None:
    assert replace(_state(), host=host, certificate=certificate).url == url
