"""Runs the steps one after the other; each leaves a result, whatever becomes of it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.gpu.child import end_marked, run_limited
from benchmarks.gpu.config import GpuConfig, StepConfig
from benchmarks.gpu.context import Address, Context, Model
from benchmarks.gpu.engines import Engines, link_models
from benchmarks.gpu.hardware import gpus, versions
from benchmarks.gpu.limits import Card
from benchmarks.gpu.model import prepare
from benchmarks.gpu.plan import clock, decide, need_s, remaining_s, step_key
from benchmarks.gpu.results import read_all, read_result, write_result
from benchmarks.report import environment
from benchmarks.sides import SideError
from configs import ConfigError

__all__ = ["Runner"]

PROGRAM = (sys.executable, "-m", "benchmarks.gpu.step")
LAST_LINES = 15
ENGINE_END_S = 5.0

Result = dict[str, Any]


class Runner:
    """One call of the command: a folder, a budget, some steps."""

    def __init__(
        self,
        config: GpuConfig,
        out: Path,
        budget_s: float,
        command: Sequence[str],
        say: Callable[[str], None] = lambda line: print(line, flush=True),
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self._config = config
        self._out = out.absolute()
        self._budget_s = budget_s
        self._command = list(command)
        self._say = say
        self._program = list(program)
        self._began = time.monotonic()
        self._mark = hashlib.sha256(str(self._out).encode()).hexdigest()[:12]

    @property
    def left_s(self) -> float:
        """What is left of the budget."""
        return self._budget_s - (time.monotonic() - self._began)

    def run(self, steps: Sequence[StepConfig]) -> list[Result]:
        """Run `steps`; their results in order, kept ones included. Raises ConfigError."""
        with only_one(self._out):
            return self._run(steps)

    def _run(self, steps: Sequence[StepConfig]) -> list[Result]:
        for folder in ("logs", "engines", "work"):
            (self._out / folder).mkdir(parents=True, exist_ok=True)
        if leftovers := end_marked(self._mark):
            self._say(f"ended {leftovers} processes that an earlier run had left")
        model = prepare(self._config.model, self._out)
        link_models(self._out / "home")
        results = []
        with Engines(self._config.engines, model, self._out, self._mark) as engines:
            for place, step in enumerate(steps):
                head = f"[{place + 1}/{len(steps)}] {step.name}"
                to_come = [step for step in steps[place:] if not self._is_kept(step)]
                eta = remaining_s(self._config, to_come, engines.running, self.left_s)
                self._say(
                    f"{head}: {clock(self._budget_s - self.left_s)} of {clock(self._budget_s)} "
                    f"used, the steps that fit need about {clock(eta)}"
                )
                results.append(self._one(step, model, engines))
                found = results[-1]
                cause = f": {found['cause'].splitlines()[0]}" if found["cause"] else ""
                self._say(f"{head}: {found['status']} in {found['seconds']:.0f} s{cause}")
        return results

    def _one(self, step: StepConfig, model: Model, engines: Engines) -> Result:
        key = step_key(self._config, step)
        previous = read_result(self._out, step.name)
        need = need_s(self._config, step, engines.running)
        decision = decide(step, key, previous, need, self.left_s)
        if decision.what == "keep":
            assert previous is not None
            self._say(f"    {decision.reason}")
            return previous
        partial = previous["result"] if previous is not None and previous["key"] == key else {}
        frame = self._frame(step, key, model)
        if decision.what == "skip":
            return self._write(frame, "skipped", decision.reason, partial, 0.0)
        began = time.monotonic()
        try:
            addresses = engines.need(step.engines, max(ENGINE_END_S, self.left_s))
        except SideError as exc:
            return self._write(frame, "failed", str(exc), partial, time.monotonic() - began)
        frame["engines_ready_s"] = time.monotonic() - began
        frame["engines"] = [address.__dict__ for address in addresses]
        try:
            status, cause, result = self._child(step, model, addresses, partial)
        except BaseException:
            kept = self._kept(step)
            self._write(frame, "interrupted", "ended from outside", kept, time.monotonic() - began)
            raise
        if status == "timeout":
            engines.keep_only(())
        return self._write(frame, status, cause, result or partial, time.monotonic() - began)

    def _is_kept(self, step: StepConfig) -> bool:
        previous = read_result(self._out, step.name)
        return decide(step, step_key(self._config, step), previous, 0.0, 0.0).what == "keep"

    def _child(
        self, step: StepConfig, model: Model, addresses: tuple[Address, ...], partial: Result
    ) -> tuple[str, str, Result]:
        """Status, cause and result of the step's process."""
        work = self._out / "work"
        task, found = work / f"{step.name}.task.json", work / f"{step.name}.found.json"
        found.unlink(missing_ok=True)
        context = Context(self._out, model, self._card(), addresses, partial)
        given = {"run": step.run.model_dump(mode="json"), "parent": os.getpid()}
        task.write_text(json.dumps(given | context.as_task()), encoding="utf-8")
        log = self._out / "logs" / f"{step.name}.log"
        limit_s = min(step.limit_s, max(1.0, self.left_s))
        end = run_limited(
            [*self._program, str(task), str(found)],
            log,
            limit_s,
            os.environ,
            f"{self._mark}:{step.name}",
        )
        result = self._kept(step)
        if end.timed_out:
            return "timeout", f"killed after its {limit_s:.0f} s; see {log}", result
        outcome = _read(found)
        if outcome.get("status") in ("ok", "missing", "failed"):
            return outcome["status"], outcome["cause"], result
        lines = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        return "failed", f"its process ended with {end.status}:\n" + "\n".join(lines), result

    def _kept(self, step: StepConfig) -> Result:
        return dict(_read(self._out / "work" / f"{step.name}.found.json").get("result") or {})

    def _card(self) -> Card:
        """The ceilings that a step measured in this folder, else the configuration's."""
        for found in read_all(self._out).values():
            if found["kind"] == "ceilings" and found["status"] == "ok":
                rates = [
                    row["tflop_s"]
                    for row in found["result"]["matmul"]
                    if row["type"] == "bf16" and "tflop_s" in row
                ]
                if rates:
                    return Card(1e9 * found["result"]["copy"]["gb_s"], 1e12 * max(rates), True)
        card = self._config.card
        return Card(1e9 * card.gb_s, 1e12 * card.tflop_s, False)

    def _frame(self, step: StepConfig, key: str, model: Model) -> Result:
        """All of a result but what was found."""
        where = environment(self._command)
        where["packages"] = where["packages"] | versions()
        where["revision_file"] = _revision()
        return {
            "benchmark": "gpu",
            "step": step.name,
            "kind": step.run.kind,
            "key": key,
            "rehearsal": self._config.rehearsal,
            **where,
            "gpus": gpus(),
            "limit_s": step.limit_s,
            "settings": step.run.model_dump(mode="json"),
            "model": {"name": model.name, "config": model.config},
            "engine_settings": {
                name: self._config.engines[name].model_dump(mode="json") for name in step.engines
            },
            "engines": [],
        }

    def _write(
        self, frame: Result, status: str, cause: str, result: Mapping[str, Any], seconds: float
    ) -> Result:
        whole = {
            **frame,
            "status": status,
            "cause": cause,
            "seconds": seconds,
            "result": dict(result),
        }
        write_result(self._out, whole)
        return whole


@contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Hold the folder for this process. Raises ConfigError when another one measures there."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise ConfigError(f"another measurement runs in {out}: await it, or --out DIR") from exc
        yield


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return dict(found)


def _revision() -> str | None:
    """What a bundle says it was packed from: the file REVISION beside the packages."""
    try:
        return (Path(__file__).parents[2] / "REVISION").read_text(encoding="utf-8").strip()
    except OSError:
        return None
