"""A run whose process is killed, stopped and started again ends as one that was left alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import finetune
from finetune.events import Event, read_events
from finetune.run_folder import dump
from finetune.summary import load_summary
from tests.integration.finetune import tiny
from tests.integration.finetune.test_run import WEIGHTS, losses

ROOT = Path(__file__).parents[3]
STEPS = 60


def start(config: Path, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "finetune", "run", "--config", str(config)]
    with (folder.parent / "log").open("ab") as log:
        return subprocess.Popen(
            [*command, "--run", str(folder)],
            cwd=ROOT,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
        )


def wait_for(child: subprocess.Popen[bytes], folder: Path, is_it: Callable[[Event], bool]) -> None:
    """Return as soon as the child has written such an event; it may not end before."""
    at = read_events(folder).after
    while True:
        page = read_events(folder, at)
        if any(map(is_it, page.events)):
            return
        log = folder.parent / "log"
        assert child.poll() is None, log.read_text()
        at = page.after
        time.sleep(0.01)


def reached(step: int) -> Callable[[Event], bool]:
    return lambda event: event.type == "metrics" and event.data["step"] >= step


def test_a_run_killed_at_a_random_step_ends_as_one_left_alone(
    model: Path, facts: Path, tmp_path: Path
) -> None:
    config = tiny.config(
        model, facts, "lora.dropout=0.05", epochs=1000, max_steps=STEPS, checkpoint_every=7,
        evaluate_every=50, learning_rate=0.003,
    )  # fmt: skip
    (file := tmp_path / "config.yaml").write_text(dump(config))
    folder = tmp_path / "run"

    child = start(file, folder)
    wait_for(child, folder, reached(random.Random(os.getpid()).randint(8, 20)))
    child.kill()
    assert child.wait() == -signal.SIGKILL
    summary = load_summary(folder)
    assert summary is not None
    assert summary.status == "running"

    child = start(file, folder)
    wait_for(child, folder, lambda event: event.message.startswith("goes on after step"))
    wait_for(child, folder, lambda event: event.type == "metrics")
    child.send_signal(signal.SIGTERM)
    assert child.wait() == 75, (tmp_path / "log").read_text()
    stopped = load_summary(folder)
    assert stopped is not None
    assert stopped.status == "interrupted"
    assert 8 <= stopped.steps < STEPS

    assert finetune.run(config, folder).exit_status == 0
    assert finetune.run(config, tmp_path / "alone").exit_status == 0
    assert len(losses(folder)) == STEPS
    assert losses(folder) == losses(tmp_path / "alone")
    found = [(tmp_path / each / "adapter" / WEIGHTS).read_bytes() for each in ("run", "alone")]
    assert found[0] == found[1]
