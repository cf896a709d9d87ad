"""The systems under test: started as commands, awaited, measured from outside, and ended."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from pydantic import Field

from configs import StrictModel

__all__ = ["Side", "SideConfig", "SideError", "running", "start_sides"]

MARK = "BENCHMARK_SIDE"
POLL_S = 0.1
STOP_S = 40.0


class SideError(RuntimeError):
    """A side did not start or does not answer; the message ends with its last output."""


class SideConfig(StrictModel):
    """One system under test."""

    name: str
    command: tuple[str, ...] = ()
    """Words of the command; `{python}`, `{port}`, `{home}` (an empty folder) and the free ports
    `{port_b}` and `{port_c}` are filled in."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables besides the caller's own; values are filled in as in `command`."""
    url: str = ""
    """A running server to measure instead of starting `command`."""
    port: int = 0
    """What `{port}` stands for; 0 takes a free one."""
    ready: str = "/health"
    """Path that answers 200 once the system can generate."""
    model: str = ""
    """By default the first that `/v1/models` lists."""
    headers: dict[str, str] = Field(default_factory=dict)
    credentials: str = ""
    """File with a line `admin_key: KEY`, as `corral serve` writes it: the client presents the key.
    `{home}` is filled in."""
    start_timeout_s: float = 180.0
    enabled: bool = True


class Side:
    """A running system: where it is, and what its processes cost."""

    def __init__(self, config: SideConfig, url: str, mark: str = "", credentials: str = "") -> None:
        self.name = config.name
        self.config = config
        self.url = url
        self.model = ""
        self.ready_s = 0.0
        self._mark = mark
        self._credentials = Path(credentials or config.credentials or os.devnull)

    @property
    def headers(self) -> dict[str, str]:
        """What the client sends along, its key included."""
        if not self._credentials.exists():
            return dict(self.config.headers)
        lines = self._credentials.read_text(encoding="utf-8").splitlines()
        pairs = (line.partition(":") for line in lines)
        keys = [value.strip() for name, _, value in pairs if name.strip() == "admin_key"]
        bearer = {"authorization": f"Bearer {keys[0]}"} if keys else {}
        return bearer | self.config.headers

    def processes(self) -> list[psutil.Process]:
        """All that were started for this side; none for a given url.

        Found by a mark in their environment, since Ray detaches some from their parents, and
        below those, since a process that renames itself writes over its environment.
        """
        if not self._mark:
            return []
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, OSError):
                if process.environ().get(MARK) == self._mark:
                    below = process.children(recursive=True)
                    found |= {each.pid: each for each in (process, *below)}
        return list(found.values())

    def cpu_s(self) -> float:
        """CPU seconds that the processes have used, those of ended children included."""
        total = 0.0
        for process in self.processes():
            try:
                total += sum(process.cpu_times()[:4])
            except psutil.NoSuchProcess:
                continue
        return total

    def idle_cpu_share(self, seconds: float = 2.0) -> float:
        """Cores that it keeps busy when nobody asks anything, over `seconds`."""
        began = self.cpu_s()
        time.sleep(seconds)
        return (self.cpu_s() - began) / seconds


@contextmanager
def start_sides(sides: Sequence[SideConfig], logs: Path) -> Iterator[list[Side]]:
    """Start the enabled sides one after the other; end them in reverse. Raises SideError."""
    with ExitStack() as stack:
        yield [stack.enter_context(running(side, logs)) for side in sides if side.enabled]


@contextmanager
def running(
    config: SideConfig, logs: Path, poll: Callable[[Path], None] = lambda _: None
) -> Iterator[Side]:
    """One side, from its start to its end. `poll` is called with the log while it starts."""
    logs.mkdir(parents=True, exist_ok=True)
    if config.url:
        side = Side(config, config.url.rstrip("/"))
        _await_ready(side, None, None, poll)
        yield side
        return
    home = tempfile.mkdtemp(prefix="bench-")
    log = logs / f"{config.name}.log"
    port = config.port or free_port()
    fill = {
        "python": sys.executable,
        "port": str(port),
        "port_b": str(free_port()),
        "port_c": str(free_port()),
        "home": home,
    }
    command = [_filled(word, fill) for word in config.command]
    mark = uuid.uuid4().hex
    own = {name: _filled(value, fill) for name, value in config.env.items()}
    env = os.environ | own | {MARK: mark}
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, env=env, start_new_session=True
            )
        credentials = _filled(config.credentials, fill)
        side = Side(config, f"http://127.0.0.1:{port}", mark, credentials)
        try:
            _await_ready(side, process, log, poll)
            yield side
        finally:
            _end(process, side)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _filled(text: str, values: dict[str, str]) -> str:
    """Only these names are replaced: other braces, as in JSON, are left as they are."""
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def home_credentials() -> str:
    """Where `corral serve` keeps its key when nobody names another home."""
    home = Path(os.environ.get("CORRAL_HOME") or "~/.corral").expanduser()
    return str(home / "credentials")


def free_port() -> int:
    """A TCP port of the loopback interface that nothing holds now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def fetch(url: str, headers: Mapping[str, str] | None = None) -> bytes:
    """Body of a GET. Raises OSError, also for any status but 200."""
    request = urllib.request.Request(url, headers=dict(headers or {}))
    with urllib.request.urlopen(request, timeout=5) as response:
        body: bytes = response.read()
        return body


def _await_ready(
    side: Side,
    process: subprocess.Popen[bytes] | None,
    log: Path | None,
    poll: Callable[[Path], None],
) -> None:
    began = time.monotonic()
    while True:
        if log is not None:
            poll(log)
        try:
            fetch(side.url + side.config.ready, side.headers)
            side.model = side.config.model or _first_model(side)
            side.ready_s = time.monotonic() - began
            return
        except (OSError, ValueError) as exc:
            fault = exc
        if process is not None and process.poll() is not None:
            raise SideError(f"{side.name} ended with status {process.returncode}:\n{_tail(log)}")
        if time.monotonic() - began > side.config.start_timeout_s:
            raise SideError(
                f"{side.name} at {side.url} was not ready after "
                f"{side.config.start_timeout_s:g} s ({fault})\n{_tail(log)}"
            )
        time.sleep(POLL_S)


def _first_model(side: Side) -> str:
    listed = json.loads(fetch(side.url + "/v1/models", side.headers))["data"]
    if not listed:
        raise ValueError(f"{side.name} lists no model")
    return str(listed[0]["id"])


def _tail(log: Path | None) -> str:
    if log is None:
        return ""
    lines = log.read_text(errors="replace").splitlines()[-20:]
    return "\n".join([*lines, f"(whole output: {log})"])


def _end(process: subprocess.Popen[bytes], side: Side) -> None:
    """Ask the root to end; what is left of the side after the grace is killed."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, left = psutil.wait_procs(side.processes(), timeout=5)
    for survivor in left:
        try:
            survivor.kill()
        except psutil.NoSuchProcess:
            continue
