"""The trainer's process: started in a group of its own, told to end, killed if it will not."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

import serving
from serving.finetuning.settings import Settings, Workplace

ROOT = Path(serving.__file__).parents[1]
_SECRET = ("RAY_", "CORRAL_API_KEY", "OPENAI_", "HF_TOKEN", "AWS_", "GOOGLE_", "AZURE_")
"""Beginnings of variables that a trainer has no use for."""


class Child:
    """One trainer at work in a workplace. The thread that starts it must outlive it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._told_at: float | None = None

    @staticmethod
    def start(settings: Settings, place: Workplace, lock: int) -> Child:
        """Run the trainer; it inherits `lock`, and so holds it until its last process ends."""
        finetuning = settings.config.finetuning
        module = "finetune" if finetuning.trainer == "finetune" else "serving.finetuning.fake"
        python = [sys.executable, "-P", "-m"]
        launch = ["serving.finetuning.launch", str(finetuning.nice), str(os.getpid())]
        trainer = [module, "run", "--config", str(place.config), "--run", str(place.run)]
        with place.log.open("ab") as log:
            process = subprocess.Popen(
                [*python, *launch, *python, *trainer],
                cwd=place.folder,
                env=environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock,),
                process_group=0,
            )
        return Child(process)

    @property
    def pid(self) -> int:
        """Of the process and of its group."""
        return self._process.pid

    def status(self) -> int | None:
        """Its exit status; None while it works."""
        return self._process.poll()

    def tell(self, grace_s: float) -> None:
        """Ask it to write a checkpoint and end; called again after `grace_s`, it is killed."""
        now = time.monotonic()
        if self._told_at is None:
            self._told_at = now
            self._signal(signal.SIGTERM)
        elif now - self._told_at > grace_s:
            self._signal(signal.SIGKILL)

    def kill(self) -> None:
        """End it, all its processes included."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            if number == signal.SIGTERM:
                os.kill(self.pid, number)  # it tells its own
            else:
                os.killpg(self.pid, number)


def take_lock(place: Workplace) -> int | None:
    """The workplace's lock, or None while an earlier trainer still holds it."""
    handle = os.open(place.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def kill_leftover(place: Workplace) -> None:
    """End every process that an earlier attempt has left in this workplace."""
    folder = str(place.folder)
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd() == folder:
                process.kill()


def environment(settings: Settings) -> dict[str, str]:
    """Of a trainer: the stack's, less its secrets."""
    finetuning = settings.config.finetuning
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_SECRET)}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    kept |= {
        "CORRAL_HOME": str(settings.home.root),
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": str(settings.threads),
        "MKL_NUM_THREADS": str(settings.threads),
        "PYTHONUNBUFFERED": "1",
    }
    if not finetuning.num_gpus and finetuning.share == "none":
        kept["CUDA_VISIBLE_DEVICES"] = ""
    return kept
