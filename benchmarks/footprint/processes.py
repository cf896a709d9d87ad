"""What each process of a running stack is, and what it holds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Footprint", "footprints", "role"]


@dataclass(frozen=True)
class Footprint:
    """Memory of one process."""

    role: str
    pid: int
    pss_mib: float
    """Proportional set: shared pages are split between those who share them; it sums up."""
    rss_mib: float
    """Resident set: shared pages count in full."""
    threads: int
    cpu_s: float
    """CPU time since it started."""


def footprints(processes: Iterable[psutil.Process]) -> list[Footprint]:
    """The largest first; processes that end meanwhile are left out."""
    found = []
    for process in processes:
        try:
            with process.oneshot():
                memory = process.memory_info().rss / 2**20
                cpu = process.cpu_times()
                found.append(
                    Footprint(
                        role=role(process.cmdline() or [process.name()]),
                        pid=process.pid,
                        pss_mib=_pss_mib(process.pid),
                        rss_mib=memory,
                        threads=process.num_threads(),
                        cpu_s=cpu.user + cpu.system,
                    )
                )
        except (psutil.NoSuchProcess, OSError):
            continue
    return sorted(found, key=lambda one: one.pss_mib, reverse=True)


def role(cmdline: Sequence[str]) -> str:
    """A short name: a Ray worker's title, a Python module or script, or the program."""
    program = cmdline[0]
    if program.startswith(("ray::", "VLLM::")):
        return re.split(r"[\s(.]", program, maxsplit=1)[0]
    if "python" not in os.path.basename(program):
        return os.path.basename(program)
    words = [word for word in cmdline[1:] if word not in ("-u", "-E", "-s", "-I", "-B")]
    if words[:1] == ["-m"]:
        return words[1] if len(words) > 1 else "python"
    if words[:1] == ["-c"]:
        called = re.search(r"from ([\w.]+) import", words[1] if len(words) > 1 else "")
        return called[1] if called else "python -c"
    return os.path.basename(words[0]) if words else "python"


def _pss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0
