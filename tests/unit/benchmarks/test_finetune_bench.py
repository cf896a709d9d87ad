"""The table of trainers, and the data they are given."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks.finetune.__main__ import CONFIG
from benchmarks.finetune.compare import Row, markdown
from benchmarks.finetune.config import Case, FinetuneBenchConfig
from benchmarks.finetune.rows import write_rows
from benchmarks.finetune.sides import Figures, Side, SideFailed, call
from configs import load


def figures(side: Side, speed: float, flops: float | None = None) -> Figures:
    return Figures(side, speed, 0.0, 0.9, 3 << 30, 1000, 1.5, flops)


def row(ours: float, theirs: float, **case: float) -> Row:
    found = Case(name="small", **case)  # type: ignore[arg-type]
    return Row(found, (figures("ours", ours, 1e9),), (figures("trl", theirs),), 1e12)


def test_the_shipped_configuration_has_cases_with_and_without_a_gpu() -> None:
    config = load(FinetuneBenchConfig, CONFIG)
    assert {case.device for case in config.cases} == {"cpu", "gpu"}


def test_a_case_that_was_not_run_says_so() -> None:
    left_out = Row(Case(name="large", device="gpu"), (), (), None)
    assert left_out.met(1.0) is None
    assert left_out.as_json(1.0)["status"] == "not run"
    assert "| not run |" in " ".join(markdown([left_out]).split())


def test_a_row_compares_speed_and_use_of_the_device() -> None:
    found = row(300, 200)
    assert found.speed.value == 1.5
    assert found.mfu(found.ours) == pytest.approx(0.3)
    assert found.mfu(found.trl) == pytest.approx(0.2)
    assert "1.50 (1.50 to 1.50)" in markdown([found])
    unknown = Row(found.case, found.ours, found.trl, None)
    assert math.isnan(unknown.mfu(unknown.ours))


def test_both_bars_must_be_met() -> None:
    assert row(300, 200).met(1.0) is True
    assert row(300, 200).met(1.6) is False
    assert row(300, 200, bar_tokens_per_second=301).met(1.0) is False


def test_rows_are_the_same_each_time_and_of_many_lengths(tmp_path: Path) -> None:
    texts = [write_rows(tmp_path / name, 50, seed=1).read_text() for name in ("a", "b")]
    assert texts[0] == texts[1]
    assert texts[0] != write_rows(tmp_path / "c", 50, seed=2).read_text()
    lengths = {len(json.loads(line)["messages"][1]["content"]) for line in texts[0].splitlines()}
    assert len(lengths) > 30


def test_a_side_that_fails_says_why() -> None:
    with pytest.raises(SideFailed, match=r"ended with 1: .*no such side"):
        call(["-c", "raise SystemExit('no such side')"], 60, {})
    assert call(["-c", "print('noise'); print('{\"a\": 1}')"], 60, {}) == {"a": 1}
