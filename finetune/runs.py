"""Looks at run folders. Loads nothing heavy."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.base_model import home
from finetune.errors import RunNotFound
from finetune.events import Event, read_events
from finetune.summary import load_summary

_DEPTH = 2


@dataclass(frozen=True)
class RunView:
    """A run at a glance."""

    folder: Path
    state: str
    """As the last state event; `killed` if it says that it goes on, and no process does."""
    at: float
    """Of the last event, seconds since 1970."""
    step: int
    total_steps: int | None
    train_loss: float | None
    valid_loss: float | None
    """The last measured."""
    tokens_per_second: float | None
    precision: str | None
    gate: str | None
    """passed or failed; None where nothing was asked for."""


def find_runs(folder: Path) -> list[RunView]:
    """Those in `folder` and in its folders (a search's trials), the newest first."""
    return sorted(map(view, _folders(folder, _DEPTH)), key=lambda each: each.at, reverse=True)


def find_run(name: str) -> Path:
    """A run's folder, or the name of one in `$CORRAL_HOME/runs`. Raises RunNotFound."""
    for folder in (Path(name), home() / "runs" / name):
        if is_run(folder):
            return folder
    raise RunNotFound(
        f"no run {name!r}: neither that folder nor {home() / 'runs' / name} has a run; "
        "`python -m finetune list` shows them"
    )


def is_run(folder: Path) -> bool:
    """Whether a run was started in it."""
    return (folder / "config.yaml").is_file() and (folder / "events.jsonl").is_file()


def view(folder: Path) -> RunView:
    """From its events and summary."""
    events, summary = read_events(folder).events, load_summary(folder)
    metrics = _last(events, "metrics")
    held_out = [e.data["full_valid_loss"] for e in events if "full_valid_loss" in e.data]
    state = str((_last(events, "state") or {}).get("state", "validating"))
    if state in ("validating", "running", "evaluating", "exporting") and not is_working(folder):
        state = "killed"
    gate = None if summary is None else summary.gate
    metrics = metrics or {}
    return RunView(
        folder=folder,
        state=state,
        at=events[-1].at if events else 0.0,
        step=int(metrics.get("step", 0)),
        total_steps=metrics.get("total_steps"),
        train_loss=metrics.get("train_loss"),
        valid_loss=held_out[-1] if held_out else None,
        tokens_per_second=(summary.tokens_per_second if summary else None)
        or metrics.get("tokens_per_second"),
        precision=None if summary is None else summary.precision,
        gate=None if gate is None else "passed" if gate.passed else "failed",
    )


def is_working(folder: Path) -> bool:
    """Whether a process holds the run's lock."""
    try:
        handle = os.open(folder / ".lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _last(events: tuple[Event, ...], type: str) -> dict[str, Any] | None:
    return next((dict(e.data) for e in reversed(events) if e.type == type), None)


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for each in sorted(folder.iterdir()):
        if not each.is_dir() or each.name.startswith("."):
            continue
        if is_run(each):
            yield each
        elif depth > 1:
            yield from _folders(each, depth - 1)
