"""One trial: `python -m finetune run` as a child process, watched through its events."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetune.config import FinetuneConfig
from finetune.events import Event, read_events
from finetune.run_folder import dump, write_whole
from finetune.stop import Stop
from finetune.summary import load_summary

_POLL_S = 0.5
_GRACE_S = 120.0
_INTERRUPTED = 75


@dataclass(frozen=True)
class Outcome:
    """How a trial ended."""

    end: Literal["done", "pruned", "stopped", "failed"]
    """`stopped` together with the sweep: it goes on when the sweep does."""
    valid_loss: float | None
    """The best that it reached."""
    reason: str = ""
    """Of a failure."""


def run_trial(
    config: FinetuneConfig, folder: Path, prune: Callable[[int, float], bool], stop: Stop
) -> Outcome:
    """Run, or go on with, the trial in `folder`.

    `prune` takes step and validation loss as they come, and says whether to cut the run short.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder.with_name(f"{folder.name}.yaml")
    write_whole(settings, dump(config))
    command = [sys.executable, "-m", "finetune", "run", "--config", str(settings)]
    with folder.with_name(f"{folder.name}.log").open("ab") as log:
        child = subprocess.Popen(
            [*command, "--run", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C reaches the sweep alone, which then stops its child.
            start_new_session=True,
            env=_with_path(),
        )
        try:
            pruned = _watch(child, folder, prune, stop)
        finally:
            _end(child)
    return _outcome(child.returncode, folder, pruned=pruned, stopped=stop.requested)


def best_loss(folder: Path) -> float | None:
    """The lowest validation loss in a run's events."""
    return min((found[1] for e in read_events(folder).events if (found := _loss(e))), default=None)


def _watch(
    child: subprocess.Popen[bytes], folder: Path, prune: Callable[[int, float], bool], stop: Stop
) -> bool:
    """Until the child ends; whether it was pruned."""
    after, asked = 0, False
    while True:
        over = child.poll() is not None
        page = read_events(folder, after)
        after = page.after
        for event in page.events:
            found = _loss(event)
            if found and not asked and prune(*found) and not over:
                asked = True
                child.send_signal(signal.SIGTERM)
        if over:
            return asked
        if stop.requested:
            return asked
        time.sleep(_POLL_S)


def _loss(event: Event) -> tuple[int, float] | None:
    loss, step = event.data.get("full_valid_loss"), event.data.get("step")
    if event.type != "metrics" or loss is None or step is None:
        return None
    return int(step), float(loss)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ask for an end, which writes a checkpoint; insist after two minutes."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
    try:
        child.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _outcome(status: int, folder: Path, *, pruned: bool, stopped: bool) -> Outcome:
    loss = best_loss(folder)
    if status == 0:
        return Outcome("done", loss)
    if status == _INTERRUPTED and pruned:
        return Outcome("pruned", loss)
    if stopped:
        return Outcome("stopped", loss)
    summary = load_summary(folder)
    error = summary.error.message if summary and summary.error else f"exit status {status}"
    return Outcome("failed", loss, f"{error}; see {folder.name}.log")


def _with_path() -> dict[str, str]:
    """The child must find this package from any working directory."""
    root = str(Path(__file__).parents[2])
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}
