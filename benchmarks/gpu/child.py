"""Runs one step as a process with a limit, and ends all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["MARK", "End", "end_marked", "run_limited"]

MARK = "CORRAL_GPU_BENCHMARK"
"""Environment variable that all processes of a measurement inherit."""
GONE_S = 10.0


@dataclass(frozen=True)
class End:
    """How a process ended: its status, or None when it was killed at the limit."""

    status: int | None

    @property
    def timed_out(self) -> bool:
        return self.status is None


def run_limited(
    command: Sequence[str], log: Path, limit_s: float, env: Mapping[str, str], mark: str
) -> End:
    """Run `command` for at most `limit_s`, its output to `log`.

    Whatever is left of its process group, and whatever bears `mark` in its environment, is
    killed when it ends or is interrupted.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**env, MARK: mark},
            start_new_session=True,
        )
    try:
        return End(process.wait(limit_s))
    except subprocess.TimeoutExpired:
        return End(None)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        end_marked(mark)


def end_marked(mark: str) -> int:
    """Kill every process whose environment bears `mark` or one below it (`mark:...`).

    Returns how many there were.
    """
    found = [process for process in psutil.process_iter() if _bears(process, mark)]
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(found, timeout=GONE_S)
    return len(found)


def _bears(process: psutil.Process, mark: str) -> bool:
    if process.pid == os.getpid():
        return False
    try:
        return f"{process.environ().get(MARK)}:".startswith(f"{mark}:")
    except (psutil.Error, OSError):
        return False
