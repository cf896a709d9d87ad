from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.config import GpuConfig
from benchmarks.gpu.plan import decide, need_s, parse_budget, remaining_s, select, step_key
from configs import ConfigError, load, parse

ROOT = Path(__file__).parents[3]
FILES = ("gpu", "gpu-rehearse")
LEVEL = {"streams": 1, "warmup_s": 0, "window_s": 1}


def config(**more: Any) -> GpuConfig:
    steps = [
        {"name": "tuning-a", "run": {"kind": "variant", "level": LEVEL}, "engines": ["a"]},
        {"name": "tuning-b", "run": {"kind": "variant", "level": LEVEL}, "engines": ["b"]},
        {"name": "best", "run": {"kind": "best"}, "expect_s": 1},
    ]
    engines = {
        name: {"kind": "command", "command": ["x", name], "expect_s": 40} for name in ("a", "b")
    }
    data = {"model": {"name": "m", "directory": "m"}, "engines": engines, "steps": steps}
    return parse(GpuConfig, data | more)


def test_budgets_are_times() -> None:
    assert [parse_budget(text) for text in ("90", "90s", "20m", "1.5h")] == [90, 90, 1200, 5400]
    for wrong in ("", "20 minutes", "-3m", "0"):
        with pytest.raises(ConfigError, match="is no time"):
            parse_budget(wrong)


def test_steps_are_chosen_by_name_or_by_what_it_begins_with() -> None:
    steps = config().steps
    assert [step.name for step in select(steps, "")] == ["tuning-a", "tuning-b", "best"]
    assert [step.name for step in select(steps, "best, tuning-a")] == ["tuning-a", "best"]
    assert [step.name for step in select(steps, "tuning")] == ["tuning-a", "tuning-b"]
    with pytest.raises(ConfigError, match="no step called tun; there are: tuning-a"):
        select(steps, "tun")


def test_a_result_is_kept_only_for_the_same_inputs() -> None:
    step = config().steps[0]
    key = step_key(config(), step)
    done = {"key": key, "status": "ok"}
    assert decide(step, key, done, 70, 0).what == "keep"
    assert decide(step, key, done | {"status": "missing"}, 70, 0).what == "keep"
    for status in ("failed", "timeout", "skipped", "interrupted"):
        assert decide(step, key, done | {"status": status}, 70, 100).what == "run"
    assert decide(step, "another", done, 70, 100).what == "run"
    changed = config(engines={"a": {"kind": "vllm"}, "b": {"kind": "vllm"}})
    assert step_key(changed, changed.steps[0]) != key
    other = config(card={"gb_s": 1})
    assert step_key(other, other.steps[0]) == key, "nothing that the step is given has changed"


def test_what_only_reads_other_results_always_runs() -> None:
    best = config().steps[2]
    key = step_key(config(), best)
    assert decide(best, key, {"key": key, "status": "ok"}, 1, 100).what == "run"


def test_a_step_that_does_not_fit_is_skipped_with_the_reason() -> None:
    settings = config()
    step = settings.steps[0]
    assert need_s(settings, step, ()) == 70
    assert need_s(settings, step, ("a",)) == 30
    skipped = decide(step, "k", None, 70, 69)
    assert (skipped.what, skipped.reason) == (
        "skip",
        "1:09 of the budget left, about 1:10 needed",
    )
    assert decide(step, "k", None, 70, 70).what == "run"
    assert remaining_s(settings, settings.steps, (), 1000) == 141
    assert remaining_s(settings, settings.steps, ("a",), 90) == 31, "the second does not fit"


def test_names_must_be_known_and_distinct() -> None:
    with pytest.raises(ConfigError, match="no engine called"):
        config(engines={"a": {"kind": "vllm"}})
    twice = [{"name": "x", "run": {"kind": "best"}}] * 2
    with pytest.raises(ConfigError, match="used twice: x"):
        config(steps=twice)


@pytest.mark.parametrize("name", FILES)
def test_the_shipped_files_load(name: str) -> None:
    found = load(GpuConfig, ROOT / f"configs/bench/{name}.yaml")
    assert found.rehearsal == (name == "gpu-rehearse")
    for engine in found.engines.values():
        assert engine.kind == "command" or (ROOT / "configs/serve" / engine.serve_config).exists()


def test_the_rehearsal_has_every_kind_of_step() -> None:
    real, rehearsal = (load(GpuConfig, ROOT / f"configs/bench/{name}.yaml") for name in FILES)
    assert {s.run.kind for s in rehearsal.steps} == {s.run.kind for s in real.steps}


def test_the_steps_come_in_the_order_of_their_value() -> None:
    kinds = [step.run.kind for step in load(GpuConfig, ROOT / "configs/bench/gpu.yaml").steps]
    order = list(dict.fromkeys(kinds))
    assert order[:2] == ["ceilings", "serving"]
    assert order.index("adapters") < order.index("training") < order.index("variant")
