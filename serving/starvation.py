"""Tells an engine that waits for a CPU from one that hangs, by what the kernel counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

STARVED_SHARE = 0.5
"""Of a stretch of time, spent ready to run without running: from here on it counts as starved."""


def run_queue_waits(pids: Iterable[int]) -> dict[int, float]:
    """Seconds that each thread of these processes has been ready but not run, by thread id.

    From /proc/PID/task/TID/schedstat (the kernel's sched-stats.rst); empty where that is absent.
    """
    waits: dict[int, float] = {}
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*"):
            try:
                waits[int(task.name)] = int((task / "schedstat").read_text().split()[1]) / 1e9
            except (OSError, IndexError, ValueError):
                continue
    return waits


def starved(before: Mapping[int, float], after: Mapping[int, float], span_s: float) -> bool:
    """Whether some thread was kept waiting for a CPU through most of the `span_s` between.

    A stopped or sleeping thread does not wait for a CPU, so a hung engine is not starved.
    """
    grown = (after[thread] - seconds for thread, seconds in before.items() if thread in after)
    return max(grown, default=0.0) >= STARVED_SHARE * span_s
