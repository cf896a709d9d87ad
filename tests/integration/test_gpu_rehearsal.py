"""The measurement of a card, every step of it, on this CPU with the small model."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.config import GpuConfig
from benchmarks.gpu.results import read_all
from configs import load
from tests.integration.stack import REPOSITORY, make_home

pytestmark = pytest.mark.engine
LIMIT_S = 290


def test_every_step_runs_to_its_last_line(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    out = tmp_path / "results"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--rehearse", "--out", str(out)],
        cwd=REPOSITORY,
        env=os.environ | {"CORRAL_HOME": str(home.root), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    found = read_all(out)
    config = load(GpuConfig, REPOSITORY / "configs/bench/gpu-rehearse.yaml")
    states = {name: result["status"] for name, result in found.items()}
    expected = {step.name: "ok" for step in config.steps}
    if importlib.util.find_spec("bitsandbytes") is None:
        expected["training-qlora-checkpointed"] = "missing"
    causes = "\n".join(f"{name}: {result['cause']}" for name, result in found.items())
    assert states == expected, f"{done.stdout}\n{done.stderr}\n{causes}"
    assert done.returncode == 0
    assert found["serving-16-8"]["engines"][0]["side"] == "corral", "Ray starts here"
    assert "load_format: dummy" in (out / "best.yaml").read_text()
    if importlib.util.find_spec("matplotlib") is not None:
        assert (out / "gpu-serving-16-8.png").stat().st_size > 1000
    else:
        assert "matplotlib" in (out / "summary.md").read_text()
