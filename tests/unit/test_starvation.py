from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from serving.starvation import run_queue_waits, starved

SPIN = "import os; os.sched_setaffinity(0, {0}); print(flush=True)\nwhile True: pass"


@contextmanager
def spinning(niceness: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """A process that never sleeps, on the first core."""
    process = subprocess.Popen(
        ["nice", "-n", str(niceness), sys.executable, "-c", SPIN], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def watched(process: subprocess.Popen[bytes], span_s: float) -> bool:
    before = run_queue_waits([process.pid])
    time.sleep(span_s)
    return starved(before, run_queue_waits([process.pid]), span_s)


@pytest.mark.skipif(0 not in os.sched_getaffinity(0), reason="may not use the first core")
def test_a_process_that_gets_no_cpu_is_starved_and_a_stopped_one_is_not() -> None:
    with spinning(niceness=19) as low, spinning():
        assert watched(low, 0.5)
        low.send_signal(signal.SIGSTOP)
        time.sleep(1.0)  # it must get a CPU once to stop
        assert not watched(low, 0.5)


def test_a_sleeping_process_is_not_starved() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            assert not watched(process, 0.3)
        finally:
            process.kill()


def test_a_process_that_is_gone_is_not_starved() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert run_queue_waits([process.pid]) == {}
    assert not starved({1: 5.0}, {}, 1.0)
