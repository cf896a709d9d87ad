"""Steps that need no card, in their own process, against the fake engine; and what they choose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.config import GpuConfig
from benchmarks.gpu.context import Missing
from benchmarks.gpu.runner import Runner
from benchmarks.gpu.steps.cold_start import parse as parse_phases
from benchmarks.gpu.steps.tuning import choose
from configs import parse

FAKE = ["{python}", "-m", "serving.engines.fake", "--port", "{port}", "--interval", "0.002"]
LEVEL = {"streams": 2, "warmup_s": 0.1, "window_s": 0.3}
ARCHITECTURE = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
                "num_attention_heads": 2, "vocab_size": 600}  # fmt: skip


def measured(out: Path, *steps: dict[str, Any]) -> dict[str, dict[str, Any]]:
    engine = {"kind": "command", "command": FAKE, "model": "fake", "expect_s": 1}
    named = [{"expect_s": 1, "engines": ["a", "b"], **step} for step in steps]
    model = {"name": "fake", "architecture": ARCHITECTURE}
    config = parse(
        GpuConfig, {"model": model, "engines": {"a": engine, "b": engine}, "steps": named}
    )
    runner = Runner(config, out, 100.0, ["python"], lambda _: None)
    found = {result["step"]: result for result in runner.run(config.steps)}
    assert [result["cause"] for result in found.values() if result["status"] != "ok"] == []
    return {name: result["result"] for name, result in found.items()}


def test_steps_measure_two_engines_side_by_side(tmp_path: Path) -> None:
    run = {"kind": "serving", "input_tokens": 5, "output_tokens": 9}
    levels = [LEVEL, LEVEL | {"streams": 3, "rounds": 2}]
    variant = {"kind": "variant", "settings": {"x": 1}, "output_tokens": 9, "level": LEVEL}
    found = measured(
        tmp_path,
        {"name": "serving", "run": run | {"levels": levels}},
        {"name": "prefix", "run": {"kind": "prefix_cache", "lengths": [40], "requests": 2}},
        {"name": "tuning", "run": variant, "engines": ["a"]},
        {"name": "cold", "run": {"kind": "cold_start"}, "engines": []},
        {"name": "best", "run": {"kind": "best"}, "engines": []},
    )
    two, three = found["serving"]["levels"]
    assert [row["engine"] for row in two["rows"]] == ["a", "b"]
    assert three["ratio"]["low"] <= three["ratio"]["value"] <= three["ratio"]["high"]
    for row in (*two["rows"], *three["rows"]):
        assert row["failed"] == 0
        assert row["tokens_per_chunk"] == 1.0
        assert row["ttft_ms"]["samples"] > 0
        assert 1 < row["tpot_ms"]["median"] < 200
        assert row["of_limit"] == pytest.approx(
            row["output_throughput"] / (two if row in two["rows"] else three)["limit_tokens_s"]
        )
    assert not two["limit_measured"], "no step has measured the ceilings"
    assert [row["engine"] for row in found["prefix"]["rows"]] == ["a", "b"]
    assert [row["engine"] for row in found["cold"]["rows"]] == ["a", "b"]
    assert found["best"]["best"] == "tuning"
    assert "x: 1" in (tmp_path / "best.yaml").read_text()


def test_requests_that_fail_make_the_step_fail(tmp_path: Path) -> None:
    run = {"kind": "serving", "levels": [LEVEL], "input_tokens": 5000, "output_tokens": 5}
    with pytest.raises(AssertionError, match="maximum cont"):
        measured(tmp_path, {"name": "serving", "run": run, "engines": ["a"]})
    assert json.loads((tmp_path / "gpu-serving.json").read_text())["status"] == "failed"


def variant(tokens_s: float, tpot_ms: float | None) -> dict[str, Any]:
    tpot = {} if tpot_ms is None else {"median": tpot_ms}
    return {"row": {"output_throughput": tokens_s, "tpot_ms": tpot}}


def test_the_best_is_the_fastest_within_the_bound() -> None:
    found = {"slow": variant(10, 5), "fast": variant(30, 60), "good": variant(20, 40)}
    assert choose(found, 50) == "good"
    assert choose(found, 100) == "fast"
    assert choose(found, 1) == "slow", "where none keeps the bound, the one that is nearest to it"
    assert choose({"none": variant(99, None), "slow": variant(1, 9)}, 50) == "slow"
    with pytest.raises(Missing, match="no variant"):
        choose({}, 50)


def test_the_start_of_an_engine_is_read_from_its_lines() -> None:
    lines = [
        (2.0, "INFO [core.py:93] Initializing a V1 LLM engine (v0.32.0) with config"),
        (9.5, "INFO [default_loader.py:268] Loading weights took 2.50 seconds"),
        (9.8, "INFO [gpu_model_runner.py:5150] Model loading took 14.99 GiB memory and 3 seconds"),
        (30.0, "INFO [monitor.py:20] torch.compile took 18.11 s in total"),
        (33.0, "INFO [gpu_worker.py] GPU KV cache size: 400,000 tokens"),
        (45.0, "INFO [gpu_model_runner.py] Graph capturing finished in 11 secs, took 0.6 GiB"),
        (46.0, "INFO: Application startup complete."),
    ]
    assert parse_phases(lines) == {
        "engine process": 2.0,
        "weights": 9.8,
        "compilation": 30.0,
        "profile, KV cache": 33.0,
        "CUDA graphs": 45.0,
        "server": 46.0,
    }
