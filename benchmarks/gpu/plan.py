"""Which steps run, and in what time. Pure: no processes, no clock."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.gpu.config import GpuConfig, StepConfig
from benchmarks.gpu.results import FINAL, key_of
from configs import ConfigError

__all__ = [
    "Decision",
    "clock",
    "decide",
    "need_s",
    "parse_budget",
    "remaining_s",
    "select",
    "step_key",
]

ALWAYS = ("best", "cold_start")
"""Kinds that only read what others wrote: they take no time, and run whenever asked."""
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Decision:
    """What becomes of one step, and why."""

    what: Literal["run", "keep", "skip"]
    reason: str = ""


def parse_budget(text: str) -> float:
    """Seconds of `90`, `90s`, `20m` or `1.5h`. Raises ConfigError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not found or not float(found[1]):
        raise ConfigError(f"--budget {text!r} is no time: write 600s, 20m or 1h")
    return float(found[1]) * _UNITS[found[2]]


def select(steps: Sequence[StepConfig], wanted: str) -> list[StepConfig]:
    """The steps that the comma-separated names name, in the order of the configuration.

    `tuning` also means `tuning-fp8` and all others that begin so. Raises ConfigError.
    """
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    if not names:
        return list(steps)
    unknown = [name for name in names if not any(_named(step, name) for step in steps)]
    if unknown:
        known = ", ".join(step.name for step in steps)
        raise ConfigError(f"no step called {', '.join(unknown)}; there are: {known}")
    return [step for step in steps if any(_named(step, name) for name in names)]


def _named(step: StepConfig, name: str) -> bool:
    return step.name == name or step.name.startswith(f"{name}-")


def step_key(config: GpuConfig, step: StepConfig) -> str:
    """Digest of the step's inputs: its settings, the model, the engines that it talks to."""
    return key_of(
        {
            "run": step.run.model_dump(mode="json"),
            "model": config.model.model_dump(mode="json"),
            "engines": {
                name: config.engines[name].model_dump(mode="json") for name in step.engines
            },
            "rehearsal": config.rehearsal,
        }
    )


def need_s(config: GpuConfig, step: StepConfig, running: Collection[str]) -> float:
    """What the step usually takes, with the start of those engines that do not run yet."""
    starts = [config.engines[name].expect_s for name in step.engines if name not in running]
    return step.expect_s + sum(starts)


def decide(
    step: StepConfig, key: str, previous: Mapping[str, Any] | None, need: float, left_s: float
) -> Decision:
    """Whether the step runs, is kept as it is, or has no time left."""
    if previous is not None and step.run.kind not in ALWAYS:
        same = previous["key"] == key
        if same and previous["status"] in FINAL:
            return Decision("keep", "its result is there and its inputs are the same")
    if left_s < need:
        return Decision("skip", f"{clock(left_s)} of the budget left, about {clock(need)} needed")
    return Decision("run")


def remaining_s(
    config: GpuConfig, steps: Sequence[StepConfig], running: Collection[str], left_s: float
) -> float:
    """What the steps that still fit will take, one after the other."""
    total = 0.0
    for step in steps:
        need = need_s(config, step, running)
        if total + need <= left_s:
            total += need
            running = step.engines
    return total


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02d}"
