"""Finding and ending every process of a stack, by a mark in their environment.

Ray, HAProxy and vLLM start processes of their own; all inherit the environment, so
all carry the mark, whoever started them and whether or not that parent still lives.
"""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

MARK = "CORRAL_INSTANCE"
STATE_FILE = "serve.json"
KILL_S = 15.0
"""How long killed processes may take to go; one in uninterruptible sleep never does."""


@dataclass(frozen=True)
class RunState:
    """The running `corral serve`, as it wrote itself down in `$CORRAL_HOME/run`."""

    pid: int
    created: float
    """Start time of the process, which tells it from a later one with the same pid."""
    host: str
    port: int
    instance: str
    ready: bool = False
    certificate: str | None = None
    """PEM file of the certificate it serves https with; None is http."""

    @property
    def url(self) -> str:
        """Base URL for clients on this machine."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "") else self.host
        scheme = "https" if self.certificate else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def alive(self) -> bool:
        """Whether that very process still runs."""
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.created) < 1.0 and _runs(process)
        except psutil.NoSuchProcess:
            return False


def read_state(run_dir: Path) -> RunState | None:
    """The last written state, or None."""
    try:
        return RunState(**json.loads((run_dir / STATE_FILE).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def write_state(run_dir: Path, state: RunState) -> None:
    """Replace the state file whole."""
    run_dir.mkdir(parents=True, exist_ok=True)
    temporary = run_dir / f".{STATE_FILE}.{os.getpid()}"
    temporary.write_text(json.dumps(asdict(state)), encoding="utf-8")
    temporary.replace(run_dir / STATE_FILE)


def clear_state(run_dir: Path) -> None:
    """Forget the state."""
    (run_dir / STATE_FILE).unlink(missing_ok=True)


def marked(instance: str) -> list[psutil.Process]:
    """Processes of the stack `instance`, without the calling one."""
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            if process.environ().get(MARK) == instance:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue
    return found


def reap(instance: str, grace_s: float = 3.0) -> int:
    """End all processes of `instance`: SIGTERM, then SIGKILL. Returns how many there were."""
    processes = marked(instance)
    for process in processes:
        _signal(process, kill=False)
    psutil.wait_procs(processes, timeout=grace_s)
    count = len(processes)
    deadline = time.monotonic() + KILL_S
    while time.monotonic() < deadline:
        leftovers = [process for process in marked(instance) if _runs(process)]
        if not leftovers:
            break
        for process in leftovers:
            _signal(process, kill=True)
        psutil.wait_procs(leftovers, timeout=grace_s)
    return count


def port_holder(host: str, port: int) -> str | None:
    """None when the port is free, else who holds it, as text."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            return None
        except OSError as exc:
            reason = exc.strerror or str(exc)
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.laddr:
                continue
            if connection.laddr.port == port and connection.pid:
                command = " ".join(psutil.Process(connection.pid).cmdline()[:4])
                return f"process {connection.pid} ({command[:120]})"
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        pass
    return f"another user's process ({reason})"


def _runs(process: psutil.Process) -> bool:
    """Whether it still does anything: a zombie only waits for its parent to notice."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        if kill:
            process.kill()
        else:
            process.terminate()
    except psutil.NoSuchProcess:
        return
