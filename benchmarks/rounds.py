"""Runs the same load against every side in turn, round after round: A B C, B C A, C A B.

Interleaved, so that a slow minute of the machine hits all sides alike.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import psutil

from benchmarks.load import LoadResult, LoadSpec
from benchmarks.sides import Side, SideError

__all__ = ["Measurement", "measure", "run_rounds"]


@dataclass(frozen=True)
class Measurement:
    """One run of one load against one side."""

    side: str
    round: int
    load: LoadResult
    server_cpu_s: float
    other_cores: float = 0.0
    """Cores that neither client nor side used but something else did; if not near 0, distrust."""

    @property
    def server_cpu_us_per_chunk(self) -> float:
        return 1e6 * self.server_cpu_s / max(self.load.chunks, 1)


class Sample(NamedTuple):
    """CPU seconds used so far."""

    side_s: float
    machine_s: float


def measure(side: Side, spec: LoadSpec, round_: int = 0) -> Measurement:
    """Run the client in its own process and read the side's CPU time around the measurement."""
    client = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.client"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(json.dumps(asdict(spec)))
        client.stdin.close()
        began = ended = Sample(0.0, 0.0)
        line = ""
        for line in client.stdout:
            match line.strip():
                case "started":
                    began = _sample(side)
                case "ended":
                    ended = _sample(side)
    if client.returncode != 0:
        raise SideError(f"the load client against {side.name} ended with {client.returncode}")
    load = LoadResult.from_json(line)
    server_s = ended.side_s - began.side_s
    other_s = ended.machine_s - began.machine_s - server_s - load.client_cpu_s
    return Measurement(side.name, round_, load, server_s, max(0.0, other_s / load.duration))


def _sample(side: Side) -> Sample:
    times = psutil.cpu_times()
    return Sample(side.cpu_s(), sum(times) - times.idle - getattr(times, "iowait", 0.0))


def run_rounds(
    sides: Sequence[Side],
    spec: LoadSpec,
    rounds: int,
    progress: Callable[[Measurement], None] = lambda _: None,
) -> list[Measurement]:
    """`rounds` runs of `spec` on each side, interleaved. The spec's url and model are filled in."""
    done: list[Measurement] = []
    for round_ in range(rounds):
        turn = round_ % len(sides)
        for side in [*sides[turn:], *sides[:turn]]:
            filled = replace(spec, url=side.url, model=side.model, headers=side.headers)
            done.append(measure(side, filled, round_))
            progress(done[-1])
    return done
