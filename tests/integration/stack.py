"""Runs `corral serve` as users do: a process of its own, a free port, a home of its own.

with serve(tmp_path / "home", "--set", "models.0.engine.dtype=float32") as stack:
    httpx.get(stack.url + "/ready")
    stack.corral("adapters", "list").stdout

The built-in models are prepared once, in the home of the environment, and linked.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from serving.home import Home
from serving.models import prepare
from serving.runtime import admin_key

REPOSITORY = Path(__file__).parents[2]
START_S = 240.0
STOP_S = 60.0


@dataclass(frozen=True)
class Stack:
    """A stack that answers at `url`."""

    home: Home
    url: str
    process: subprocess.Popen[bytes]

    @property
    def key(self) -> str:
        """The admin key."""
        return admin_key(self.home)

    @property
    def headers(self) -> dict[str, str]:
        """Of a request that bears it."""
        return {"authorization": f"Bearer {self.key}"}

    def corral(self, *arguments: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """The output of one `corral` command that finds this stack by its home."""
        return subprocess.run(
            [sys.executable, "-m", "serving.cli", *arguments],
            cwd=REPOSITORY,
            env=environment(self.home),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def log(self) -> str:
        """The last lines that `corral serve` and the stack behind it printed."""
        files = (self.home.root / "serve.out", self.home.logs / "stack.log")
        texts = [path.read_text(errors="replace") for path in files if path.exists()]
        return "\n".join(line for text in texts for line in text.splitlines()[-30:])


def make_home(root: Path, models: tuple[str, ...] = ("smollm2-135m", "all-minilm-l6-v2")) -> Home:
    """A home at `root` that shares the prepared models of the environment's home."""
    shared, home = Home.from_env(), Home(root)
    root.mkdir(parents=True, exist_ok=True)
    for model in models:
        prepare(model, shared, progress=print)
    if models and not home.models.exists():
        home.models.symlink_to(shared.models, target_is_directory=True)
    return home


@contextmanager
def serve(
    home: Home, *options: str, config: str = "local", certificate: str | None = None
) -> Iterator[Stack]:
    """Start, wait until every model generates, and stop as Ctrl-C does; status 0 is demanded.

    With a `certificate` the stack is one that serves https with it.
    """
    port = free_port()
    arguments = ("serve", "--config", config, "--set", f"gateway.port={port}", *options)
    with (home.root / "serve.out").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.cli", *arguments],
            cwd=REPOSITORY,
            env=environment(home),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    scheme = "https" if certificate else "http"
    stack = Stack(home, f"{scheme}://127.0.0.1:{port}", process)
    try:
        _await_ready(stack, ssl.create_default_context(cafile=certificate))
        yield stack
    finally:
        process.send_signal(signal.SIGINT)
        try:
            status = process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
    assert status == 0, f"corral serve ended with status {status}:\n{stack.log()}"


def environment(home: Home) -> dict[str, str]:
    """What a `corral` command of this home is given; output wide enough to keep names whole."""
    return {
        **os.environ,
        "CORRAL_HOME": str(home.root),
        "PYTHONPATH": str(REPOSITORY),
        "COLUMNS": "400",
    }


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_ready(stack: Stack, trust: ssl.SSLContext) -> None:
    """Wait until `corral serve` has said that it is ready, and `/ready` agrees."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if stack.process.poll() is not None:
            raise AssertionError(f"corral serve ended while starting:\n{stack.log()}")
        if f"ready {stack.url}" in (stack.home.root / "serve.out").read_text(errors="replace"):
            answer = httpx.get(f"{stack.url}/ready", timeout=30.0, verify=trust)
            assert answer.status_code == 200, answer.text
            return
        time.sleep(0.2)
    raise AssertionError(f"not ready within {START_S:g} s:\n{stack.log()}")
