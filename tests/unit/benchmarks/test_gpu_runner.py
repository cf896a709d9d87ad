"""The runner with steps that work, fail, hang and are interrupted; processes are real."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.gpu.config import GpuConfig
from benchmarks.gpu.results import read_result
from benchmarks.gpu.runner import Runner, only_one
from configs import ConfigError, parse

ROOT = Path(__file__).parents[3]
PROGRAM = (sys.executable, str(Path(__file__).with_name("gpu_program.py")))
LEVEL = {"streams": 1, "warmup_s": 0, "window_s": 1}
ARCHITECTURE = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
                "num_attention_heads": 2, "vocab_size": 600}  # fmt: skip


def step(name: str, do: str, **more: Any) -> dict[str, Any]:
    run = {"kind": "variant", "settings": {"do": do}, "level": LEVEL}
    return {"name": name, "run": run, "expect_s": 1} | more


def settings(*steps: dict[str, Any], **more: Any) -> GpuConfig:
    model = {"name": "m", "architecture": ARCHITECTURE}
    return parse(GpuConfig, {"model": model, "steps": list(steps)} | more)


def run(out: Path, config: GpuConfig, budget_s: float = 60.0) -> dict[str, dict[str, Any]]:
    runner = Runner(config, out, budget_s, ["python", "x"], lambda _: None, PROGRAM)
    return {result["step"]: result for result in runner.run(config.steps)}


def ended(out: Path) -> bool:
    """Whether what a hanging step had started is gone; a zombie only waits to be noticed."""
    try:
        state = psutil.Process(int((out / "away").read_text())).status()
    except psutil.NoSuchProcess:
        return True
    return bool(state == psutil.STATUS_ZOMBIE)


def calls(out: Path) -> list[str]:
    return (out / "calls").read_text().split()


def test_every_step_leaves_a_result_whatever_becomes_of_it(tmp_path: Path) -> None:
    found = run(tmp_path, settings(step("a", "die"), step("b", "lack"), step("c", "work")))
    assert {name: result["status"] for name, result in found.items()} == {
        "a": "failed",
        "b": "missing",
        "c": "ok",
    }
    assert "ended with 3" in found["a"]["cause"]
    assert "the reason" in found["a"]["cause"]
    assert found["b"]["cause"] == "no such library"
    assert found["c"]["result"]["value"] == 7
    assert read_result(tmp_path, "c") == json.loads((tmp_path / "gpu-c.json").read_text())
    for name in ("packages", "cpu", "gpus", "git", "command", "settings", "limit_s"):
        assert name in found["c"]


def test_the_same_call_again_runs_only_what_is_missing_or_changed(tmp_path: Path) -> None:
    first = settings(step("a", "work"), step("b", "die"))
    run(tmp_path, first)
    run(tmp_path, first)
    assert calls(tmp_path) == ["work", "die", "die"]
    changed = settings(step("a", "work") | {"run": step("a", "lack")["run"]})
    assert run(tmp_path, changed)["a"]["status"] == "missing"
    assert calls(tmp_path)[-1] == "lack"


def test_a_half_written_result_is_no_result(tmp_path: Path) -> None:
    config = settings(step("a", "work"))
    run(tmp_path, config)
    text = (tmp_path / "gpu-a.json").read_text()
    (tmp_path / "gpu-a.json").write_text(text[: len(text) // 2])
    assert run(tmp_path, config)["a"]["status"] == "ok"
    assert calls(tmp_path) == ["work", "work"]


def test_what_a_stopped_step_had_found_is_given_to_its_next_run(tmp_path: Path) -> None:
    config = settings(step("a", "once"))
    assert run(tmp_path, config)["a"]["result"] == {"value": 1}
    assert run(tmp_path, config)["a"]["result"] == {"before": {"value": 1}}


def test_a_step_is_killed_at_its_limit_with_all_it_started(tmp_path: Path) -> None:
    found = run(tmp_path, settings(step("a", "hang", limit_s=1), step("b", "work")))
    assert found["a"]["status"] == "timeout"
    assert "killed after its 1 s" in found["a"]["cause"]
    assert found["a"]["result"] == {"value": 1}, "what it had found by then"
    assert ended(tmp_path)
    assert found["b"]["status"] == "ok"


def test_a_step_that_does_not_fit_the_budget_is_skipped(tmp_path: Path) -> None:
    config = settings(step("a", "work", expect_s=100), step("b", "work"))
    found = run(tmp_path, config, budget_s=50)
    assert found["a"]["status"] == "skipped"
    assert "budget left, about 1:40 needed" in found["a"]["cause"]
    assert found["b"]["status"] == "ok"
    assert run(tmp_path, config, budget_s=200)["a"]["status"] == "ok"


def test_an_engine_that_does_not_start_fails_its_steps_and_no_other(tmp_path: Path) -> None:
    broken = [sys.executable, "-c", "raise SystemExit('no card here')"]
    engines = {"e": {"kind": "command", "command": broken, "model": "m"}}
    first, second = (step(name, "work", engines=["e"], expect_s=1) for name in ("a", "b"))
    found = run(tmp_path, settings(first, second, step("c", "work"), engines=engines), 500)
    assert [found[name]["status"] for name in "abc"] == ["failed", "failed", "ok"]
    assert "no card here" in found["a"]["cause"]
    assert calls(tmp_path) == ["work"]


def test_engines_are_shared_by_neighbours_and_ended_before_others(tmp_path: Path) -> None:
    fake = ["{python}", "-m", "serving.engines.fake", "--port", "{port}", "--interval", "0.001"]
    engines = {"e": {"kind": "command", "command": fake, "model": "fake"}}
    steps = [step(name, "work", engines=["e"]) for name in ("a", "b")]
    found = run(tmp_path, settings(*steps, step("c", "work"), engines=engines), 500)
    urls = {found[name]["result"]["engines"][0] for name in ("a", "b")}
    assert len(urls) == 1
    assert found["c"]["result"]["engines"] == []
    record = json.loads((tmp_path / "engines/e.json").read_text())
    assert record["first_token_s"] > 0
    port = int(urls.pop().rpartition(":")[2])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)), "nothing listens there any more"


def test_two_measurements_do_not_share_a_folder(tmp_path: Path) -> None:
    config = settings(step("a", "work"))
    with only_one(tmp_path), pytest.raises(ConfigError, match="another measurement runs in"):
        run(tmp_path, config)
    assert run(tmp_path, config)["a"]["status"] == "ok"


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_an_ended_measurement_leaves_nothing_behind_and_goes_on(
    tmp_path: Path, end: signal.Signals
) -> None:
    config = {"model": {"name": "m", "architecture": ARCHITECTURE}, "steps": [step("a", "hang")]}
    code = (
        "import json, sys, signal; from pathlib import Path\n"
        "from benchmarks.gpu.__main__ import _end; signal.signal(signal.SIGTERM, _end)\n"
        "from benchmarks.gpu.runner import Runner; from benchmarks.gpu.config import GpuConfig\n"
        f"config = GpuConfig.model_validate(json.loads({json.dumps(json.dumps(config))}))\n"
        f"Runner(config, Path({str(tmp_path)!r}), 99, [], print, {PROGRAM!r}).run(config.steps)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    away = tmp_path / "away"
    while not (away.exists() and away.read_text()):
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, end)
    process.wait(20)
    if end == signal.SIGTERM:
        assert (read_result(tmp_path, "a") or {})["status"] == "interrupted"
    assert run(tmp_path, settings(step("b", "work")))["b"]["status"] == "ok"
    assert ended(tmp_path)
