"""Runs a converter as a child process: its memory goes back, and it never outlives its parent."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from threading import Thread
from typing import IO

from serving.errors import ModelUnavailable

HEARTBEAT_S = 5.0

Progress = Callable[[str], None]


def run_converter(command: list[str], progress: Progress) -> None:
    """Run the Python script `command`, passing on its output lines. Raises ModelUnavailable.

    The child's standard input closes when this process dies, by whatever
    signal; a converter ends itself then.
    """
    began = time.monotonic()
    quiet = {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            [sys.executable, "-P", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
            env={**os.environ, **quiet},
        ) as process,
    ):
        try:
            _follow(process, progress, began)
        except BaseException:
            process.kill()
            raise
        if process.returncode:
            errors.seek(0)
            raise _failure(process.returncode, errors.read())
    progress(f"converted in {time.monotonic() - began:.0f} s")


def _follow(process: subprocess.Popen[str], progress: Progress, began: float) -> None:
    """Report each stage as it comes and, while one lasts, the time so far."""
    stages = [""]
    assert process.stdout is not None
    reader = Thread(target=_read, args=(process.stdout, stages, progress), daemon=True)
    reader.start()
    while True:
        try:
            process.wait(timeout=HEARTBEAT_S)
        except subprocess.TimeoutExpired:
            progress(f"{stages[-1]} ({time.monotonic() - began:.0f} s)")
            continue
        reader.join()
        return


def _read(output: IO[str], stages: list[str], progress: Progress) -> None:
    for line in output:
        stages.append(line.strip())
        progress(stages[-1])


def _failure(status: int, said: str) -> ModelUnavailable:
    last = next((line for line in reversed(said.splitlines()) if line.strip()), "it said nothing")
    killed = ": it was killed, probably for want of memory" if status == -9 else ""
    return ModelUnavailable(
        f"the conversion failed with status {status}{killed}: {last}\n"
        "It takes 2 GB of memory and 0.4 GB of disk; `corral doctor` checks both"
    )
