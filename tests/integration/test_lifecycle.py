"""Starting, stopping and being killed: what is left, and what the next start does about it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from safetensors.numpy import save_file

from serving.home import Home
from serving.processes import marked, read_state
from serving.runtime import runtime_directory
from tests.integration.stack import REPOSITORY, Stack, environment, free_port, make_home, serve

pytestmark = pytest.mark.cluster
GONE_S = 30.0


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home", models=())


@contextmanager
def killable(home: Home, *options: str) -> Iterator[tuple[Stack, list[psutil.Process]]]:
    """A fake stack whose processes may be killed; whatever is left at the end is ended."""
    manager = serve(home, *options, config="fake")
    stack = manager.__enter__()
    processes = marked(runtime_directory(home).name)
    try:
        yield stack, processes
    finally:
        for process in processes:
            if process.is_running():
                process.kill()
        with pytest.raises(AssertionError, match="ended with status"):
            manager.__exit__(None, None, None)


def await_gone(home: Home) -> list[psutil.Process]:
    """Processes of the stack that are left when it has had GONE_S to end."""
    deadline = time.monotonic() + GONE_S
    while (left := marked(runtime_directory(home).name)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def is_free(url: str) -> bool:
    port = int(url.rpartition(":")[2])
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def stream(stack: Stack, tokens: int, lines: list[str]) -> None:
    """Collects the data lines of a streamed completion; stops where the connection does."""
    body = {"model": "fake", "prompt": "x", "max_tokens": tokens, "stream": True}
    try:
        with httpx.stream(
            "POST", f"{stack.url}/v1/completions", json=body, headers=stack.headers, timeout=60.0
        ) as response:
            lines += [line for line in response.iter_lines() if line]
    except httpx.TransportError as exc:
        lines.append(f"broken: {exc}")


def test_sigterm_lets_running_streams_finish_and_leaves_nothing(home: Home) -> None:
    lines: list[str] = []
    with serve(home, "--set", "models.0.engine.token_interval_s=0.05", config="fake") as stack:
        url = stack.url
        reader = threading.Thread(target=stream, args=(stack, 60, lines))
        reader.start()
        time.sleep(1.0)
        stack.process.terminate()
        reader.join()
    assert lines[-1] == "data: [DONE]"
    assert len(lines) >= 60
    assert marked(runtime_directory(home).name) == []
    assert not runtime_directory(home).exists()
    assert is_free(url)


def test_corral_stop_ends_everything_and_status_says_so(home: Home) -> None:
    with serve(home, config="fake") as stack:
        assert stack.corral("status").returncode == 0
        stopped = stack.corral("stop")
        assert stopped.returncode == 0, stopped.stderr
        assert stack.process.wait(10) == 0
        assert marked(runtime_directory(home).name) == []
        assert is_free(stack.url)
        status = stack.corral("status")
        assert status.returncode == 1
        assert "corral serve" in status.stderr


def test_only_the_api_listens_and_only_on_loopback(home: Home) -> None:
    with serve(home, config="fake") as stack:
        processes = marked(runtime_directory(home).name)
        listening = {
            connection.laddr
            for process in processes
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        }
        outside = {
            address for address in listening if address.ip not in ("127.0.0.1", "::ffff:127.0.0.1")
        }
        assert stack.url.rpartition(":")[2] in {str(address.port) for address in listening}
        assert outside == set()
        for path in runtime_directory(home).iterdir():
            assert path.parent.stat().st_mode & 0o077 == 0


def test_killing_corral_serve_takes_the_whole_stack_along(home: Home) -> None:
    with killable(home) as (stack, processes):
        assert len(processes) > 5
        os.kill(stack.process.pid, signal.SIGKILL)
        assert await_gone(home) == []
        assert is_free(stack.url)


def test_killing_the_stack_ends_corral_serve_with_a_reason(home: Home) -> None:
    with killable(home) as (stack, _):
        child = next(
            child
            for child in psutil.Process(stack.process.pid).children()
            if "serving.stack" in child.cmdline()
        )
        child.kill()
        assert stack.process.wait(GONE_S) == 1
        assert "ended by itself" in stack.log()
        assert await_gone(home) == []


def test_a_start_after_killing_everything_at_once_cleans_up_and_serves(home: Home) -> None:
    with killable(home) as (stack, processes):
        survivors = [process for process in processes if "haproxy" in process.name()]
        assert survivors
        for process in [psutil.Process(stack.process.pid), *processes]:
            if process not in survivors:
                process.kill()
        assert not is_free(stack.url)
        with serve(home, config="fake") as again:
            assert httpx.get(f"{again.url}/health").status_code == 200
            assert "cleaning up" in (home.root / "serve.out").read_text()
        assert await_gone(home) == []


def test_a_second_serve_of_the_same_home_is_refused_by_name(home: Home) -> None:
    with serve(home, config="fake") as stack:
        second = stack.corral("serve", "--config", "fake", "--set", f"gateway.port={free_port()}")
        assert second.returncode == 1
        assert "already serves" in second.stderr
        assert str(stack.process.pid) in second.stderr
        assert httpx.get(f"{stack.url}/ready").status_code == 200
        state = read_state(home.run)
        assert state is not None
        assert state.alive


def test_a_held_port_is_refused_with_its_holder(home: Home) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        result = _run(home, "serve", "--config", "fake", "--set", f"gateway.port={port}")
    assert result.returncode == 1
    assert f"port {port} is held by process {os.getpid()}" in result.stderr
    assert "--set gateway.port=" in result.stderr


def test_a_failed_start_ends_with_cause_and_advice_only(home: Home, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text('{"model_type": "no-such-architecture"}')
    save_file({"weight": np.zeros(1, np.float32)}, broken / "model.safetensors")
    config = tmp_path / "broken.yaml"
    config.write_text(
        f"gateway: {{port: {free_port()}}}\n"
        f"models: [{{name: broken, source: {broken}, engine: {{kind: embedding}}}}]\n"
    )
    result = _run(home, "serve", "--config", str(config))
    assert result.returncode == 1
    assert "error broken:" in result.stderr
    assert len(result.stderr.splitlines()) < 12
    assert "Traceback" not in result.stderr
    assert await_gone(home) == []


def _run(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "serving.cli", *arguments],
        cwd=REPOSITORY,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
