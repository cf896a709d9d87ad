"""Tells MLflow of a run, in a thread beside it. What fails here never harms the run.

Points of curves are kept until the store has taken them. When it cannot be reached, one warning
says so; it is tried again from time to time and at the end, and whatever was missed is sent.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from finetune.config import FinetuneConfig
from finetune.events import Event
from finetune.mlflow_runs import MlflowRun
from finetune.run_folder import write_whole
from finetune.summary import Summary

LINK = "mlflow.json"
"""Which run of MLflow a folder belongs to, so that a resumed run goes on in it."""
_FLUSH_S = 2.0
_RETRY_S = 60.0
_END_S = 90.0
_NUMBERS = (
    "tokens_per_second", "padding_waste", "packing_efficiency", "mfu", "peak_memory_bytes",
    "trained_tokens", "learnt_tokens", "steps", "best_step",
)  # fmt: skip


class Tracker:
    """Takes a run's events. Neither a call nor `finish` raises, and calls do not wait."""

    def __init__(
        self, config: FinetuneConfig, folder: Path, runs: Path, warn: Callable[[str], None]
    ) -> None:
        """`runs` holds the default store; `warn` is told once if the store fails."""
        self._config, self._folder, self._runs, self._warn = config, folder, runs, warn
        self._uri = store_uri(config, runs)
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._pending: list[Event] = []
        self._run: MlflowRun | None = None
        self._begun = False
        self._warned = False
        self._retry_at = 0.0
        self._summary: Summary | None = None
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if event.type == "metrics":
            self._events.put(event)

    def finish(self, summary: Summary) -> str | None:
        """Send what is left, the run's files and figures; MLflow's id of the run, None if there
        is none. Waits 90 s at most."""
        self._summary = summary
        self._events.put(None)
        self._thread.join(_END_S)
        if self._thread.is_alive():
            self._say(f"did not answer within {_END_S:.0f} s")
        return self._run.run_id or None if self._run is not None else None

    def _work(self) -> None:
        ended = False
        while not ended:
            ended = self._collect()
            if not ended and time.monotonic() < self._retry_at:
                continue
            try:
                self._send()
                if ended and self._summary is not None:
                    self._end(self._summary)
            except Exception as exc:  # the thread's boundary: whatever the store's client raises
                self._retry_at = time.monotonic() + _RETRY_S
                self._say(str(exc).strip().splitlines()[0] if str(exc).strip() else repr(exc))

    def _collect(self) -> bool:
        """Wait for events, a moment longer for more of them; whether it was the last."""
        deadline = time.monotonic() + _FLUSH_S
        while True:
            try:
                event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return False
            if event is None:
                return True
            self._pending.append(event)

    def _send(self) -> None:
        run = self._opened()
        if not self._begun:
            run.parameters(self._config.model_dump(mode="json"))
            self._begun = True
        if self._pending:
            count = len(self._pending)
            run.curves(self._pending[:count])
            del self._pending[:count]

    def _opened(self) -> MlflowRun:
        if self._run is None:
            local = None if self._config.tracking.mlflow else self._runs / "mlflow-artifacts"
            experiment = self._config.tracking.experiment
            run = MlflowRun(self._uri, experiment, self._folder.name, local)
            tags = {"folder": str(self._folder.absolute()), "base_model": self._config.model}
            found = run.open(self._held_run(), tags)
            link = json.dumps({"uri": self._uri, "run_id": found})
            write_whole(self._folder / LINK, f"{link}\n")
            self._run = run
        return self._run

    def _held_run(self) -> str | None:
        try:
            held = json.loads((self._folder / LINK).read_text(encoding="utf-8"))
            return str(held["run_id"]) if held["uri"] == self._uri else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _end(self, summary: Summary) -> None:
        run = self._opened()
        run.tags(_tags(summary))
        if summary.data_hash:
            sources = [source.path for source in self._config.data.train]
            run.data_set(", ".join(sources) or "data", summary.data_hash, sources)
        values = {name: getattr(summary, name) for name in _NUMBERS}
        values |= {f"seconds_{phase}": spent for phase, spent in summary.seconds.items()}
        evaluation = _evaluation(self._folder)
        values |= _evaluated(evaluation)
        run.numbers({k: float(v) for k, v in values.items() if v is not None}, time.time())
        if rows := _samples(evaluation):
            run.samples(rows)
        run.files(self._folder)
        run.close(summary.status)

    def _say(self, cause: str) -> None:
        if not self._warned:
            self._warned = True
            self._warn(
                f"MLflow ({self._uri}) failed: {cause}. The run goes on, and its folder has "
                "everything; set tracking.enabled to false to leave MLflow out"
            )


def store_uri(config: FinetuneConfig, runs: Path) -> str:
    """The server or store of the configuration; by default `mlflow.db` in `runs`."""
    return config.tracking.mlflow or f"sqlite:///{(runs / 'mlflow.db').absolute()}"


def linked_run(folder: Path) -> str | None:
    """MLflow's id of the run in `folder`; None where MLflow has not taken it."""
    try:
        return str(json.loads((folder / LINK).read_text(encoding="utf-8"))["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _tags(summary: Summary) -> dict[str, str]:
    """Lineage, and what became of the run."""
    found: dict[str, Any] = {
        "data_hash": summary.data_hash,
        "base_revision": summary.base_revision,
        "code_version": summary.code_version,
        "precision": summary.precision,
        "gate": None if summary.gate is None else "passed" if summary.gate.passed else "failed",
        "error": None if summary.error is None else summary.error.message[:4000],
        **{f"version.{name}": version for name, version in summary.versions.items()},
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def _evaluation(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _evaluated(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """`eval_<metric>` of the trained adapter."""
    found = {}
    for name, metric in (evaluation.get("metrics") or {}).items():
        value = (metric.get("versions", {}).get("candidate") or {}).get("value")
        if isinstance(value, int | float):
            found[f"eval_{name}"] = float(value)
    return found


def _samples(evaluation: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {"prompt": each["prompt"], "reference": each["reference"], **each["answers"]}
        for each in evaluation.get("shown") or ()
    ]
