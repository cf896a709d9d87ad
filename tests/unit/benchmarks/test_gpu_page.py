from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.config import GpuConfig
from benchmarks.gpu.page import main, render
from benchmarks.gpu.tables import NOT_RUN, SECTIONS
from configs import load

ROOT = Path(__file__).parents[3]
CONFIG = load(GpuConfig, ROOT / "configs/bench/gpu.yaml")
COPY = {"copy": {"mib": 4096, "gb_s": 4301.0}, "matmul": [
    {"type": "bf16", "shape": [8192, 8192, 8192], "tflop_s": 788.0},
    {"type": "fp8", "shape": [8192, 8192, 8192], "error": "RuntimeError: not on this card"},
]}  # fmt: skip


def envelope(result: dict[str, Any], **more: Any) -> dict[str, Any]:
    card = {"name": "A Card", "memory.total": "141 GB", "power.limit": "700 W",
            "driver_version": "580"}  # fmt: skip
    packages = {"torch": "2.11.0", "vllm": "0.26.0"}
    base = {"status": "ok", "rehearsal": False, "cause": "", "gpus": [card], "packages": packages}
    return base | {"result": result} | more


def test_without_results_every_figure_is_not_run_and_one_command_fills_them_in() -> None:
    text = render({}, CONFIG.steps)
    for step in CONFIG.steps:
        lines = [line for line in text.splitlines() if line.startswith(f"| {step.name} ")]
        assert any(NOT_RUN in line for line in lines)
    assert text.count("python -m benchmarks.gpu") == 1


def test_a_result_takes_the_place_of_not_run() -> None:
    text = render({"ceilings": envelope(COPY)}, CONFIG.steps)
    assert "4,301 GB/s" in text
    assert "788.0 TFLOP/s" in text
    assert "not on this card" in text
    assert "1 × A Card, 141 GB, power limit 700 W, driver 580, torch 2.11.0, vLLM 0.26.0" in text
    assert "| ceilings " not in text


def test_rehearsals_and_failures_are_no_results() -> None:
    rehearsed = {"ceilings": envelope(COPY, rehearsal=True)}
    assert "4,301" not in render(rehearsed, CONFIG.steps)
    assert "4,301" in render(rehearsed, CONFIG.steps, rehearsal=True)
    failed = {"ceilings": envelope({}, step="ceilings", status="failed", cause="no memory\nmore")}
    text = render(failed, CONFIG.steps)
    assert "`ceilings` is failed: no memory" in text
    assert f"| ceilings | {NOT_RUN} |" in text


def test_every_kind_of_step_has_a_section() -> None:
    assert {step.run.kind for step in CONFIG.steps} <= set(SECTIONS)


def test_the_command_prints_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 0
    assert NOT_RUN in capsys.readouterr().out
