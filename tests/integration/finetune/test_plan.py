"""The estimate against real steps, on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune.summary import load_summary
from serving.home import Home
from serving.models import prepare

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[3]
TOLERANCE = 0.2
"""Of the peak that the process had: libraries and the allocator's slack are no exact figures."""


def command(*given: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "finetune", *given]
    return subprocess.run(line, capture_output=True, text=True, env=env, cwd=ROOT)


def test_peak_memory_is_what_was_estimated(tmp_path: Path) -> None:
    model = prepare("smollm2-135m", Home.from_env(), progress=print).path
    rows = [
        {
            "prompt": f"Say word {i:03} many times.",
            "completion": f" Here it is{' word' * 160} for {i:03}.",
        }
        for i in range(10, 26)
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    given = [
        str(data), "--model", str(model), "--config", "smollm2-135m",
        "--set", "train.max_steps=2", "--set", "train.batch_size=6",
        "--set", "data.validation_fraction=0", "--set", "evaluation.enabled=false",
        "--set", "tracking.enabled=false",
    ]  # fmt: skip
    estimated = command("estimate", *given, "--device", "cpu", "--json")
    assert estimated.returncode == 0, estimated.stderr
    plan: dict[str, Any] = json.loads(estimated.stdout)
    done = command("run", *given, "--run", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    summary = load_summary(tmp_path / "run")
    assert summary is not None
    assert summary.peak_memory_bytes
    assert plan["memory_bytes"]["total"] == pytest.approx(summary.peak_memory_bytes, rel=TOLERANCE)
    # Which examples the two steps take is not known before.
    assert plan["workload"]["trained_tokens"] == pytest.approx(summary.trained_tokens, rel=0.2)
    assert plan["workload"]["steps"] == summary.steps
