"""Steps that need no card, against the fake engine; and what they choose."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.context import Address, Context, Missing, Model, StepFailed
from benchmarks.gpu.limits import Card
from benchmarks.gpu.results import write_result
from benchmarks.gpu.steps import cold_start, prefix_cache, serving, tuning
from benchmarks.gpu.steps.levels import Level
from benchmarks.gpu.steps.tuning import choose
from benchmarks.sides import SideConfig, running

FAKE = ("{python}", "-m", "serving.engines.fake", "--port", "{port}", "--interval", "0.002")
LEVEL = Level(streams=2, warmup_s=0.1, window_s=0.3, rounds=2)
ARCHITECTURE = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
                "num_attention_heads": 2, "vocab_size": 600}  # fmt: skip


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    side = SideConfig(name="fake", command=FAKE, model="fake")
    with running(side, tmp_path_factory.mktemp("logs")) as started:
        yield Address("a", "fake", started.url, "fake", "")


def context(out: Path, *engines: Address, **more: Any) -> Context:
    model = Model("fake", "", ARCHITECTURE, 300, 500)
    return Context(out, model, Card(1e9, 1e9, measured=False), engines, **more)


def test_two_engines_are_measured_side_by_side(tmp_path: Path, engine: Address) -> None:
    config = serving.ServingConfig(input_tokens=5, output_tokens=9, levels=(LEVEL,))
    other = Address("b", "fake", engine.url, "fake", "")
    saved: list[dict[str, Any]] = []
    found = serving.run(config, context(tmp_path, engine, other, save=saved.append))
    (level,) = found["levels"]
    assert saved[-1] == found
    assert [row["engine"] for row in level["rows"]] == ["a", "b"]
    assert level["ratio"]["low"] <= level["ratio"]["value"] <= level["ratio"]["high"]
    assert not level["limit_measured"], "no step has measured the ceilings"
    for row in level["rows"]:
        assert row["failed"] == 0
        assert row["tokens_per_chunk"] == 1.0
        assert row["ttft_ms"]["samples"] > 0
        assert row["tpot_ms"]["median"] > 1, "the engine pauses 2 ms a token"
        assert row["of_limit"] == row["output_throughput"] / level["limit_tokens_s"]
    again = serving.run(config, context(tmp_path, partial=found))
    assert again == found, "levels that an interrupted run had measured are not measured again"


def test_requests_that_fail_make_the_step_fail(tmp_path: Path, engine: Address) -> None:
    config = serving.ServingConfig(input_tokens=5000, output_tokens=5, levels=(LEVEL,))
    with pytest.raises(StepFailed, match=r"requests failed: HTTP 400.*maximum context length"):
        serving.run(config, context(tmp_path, engine))


def test_prompts_with_and_without_a_shared_beginning_are_timed(
    tmp_path: Path, engine: Address
) -> None:
    config = prefix_cache.PrefixConfig(lengths=(40, 60), own_tokens=8, requests=2)
    rows = prefix_cache.run(config, context(tmp_path, engine))["rows"]
    assert [row["input_tokens"] for row in rows] == [40, 60]
    assert all(row["hit_ttft_ms"]["median"] > 0 for row in rows)


def test_the_best_variant_becomes_a_part_of_a_serve_file(tmp_path: Path) -> None:
    for name, rate, exact in (("fast", 30, False), ("exact", 20, True)):
        result = variant(rate, 5) | {"settings": {"max_num_seqs": rate}, "exact": exact}
        result["row"]["max_concurrency"] = 256
        write_result(tmp_path, {"step": name, "kind": "variant", "status": "ok", "result": result})
    found = tuning.run_best(tuning.BestConfig(), context(tmp_path))
    assert (found["best"], found["best_exact"]) == ("fast", "exact")
    text = (tmp_path / "best.yaml").read_text()
    assert "engine:\n  max_num_seqs: 20\n" in text
    assert "fast {'max_num_seqs': 30}" in text


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
    assert cold_start.parse(lines) == {
        "engine process": 2.0,
        "weights": 9.8,
        "compilation": 30.0,
        "profile, KV cache": 33.0,
        "CUDA graphs": 45.0,
        "server": 46.0,
    }
