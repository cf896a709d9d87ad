"""Two processes that share each step."""

from __future__ import annotations

from pathlib import Path

import pytest

import finetune
from finetune.events import Event
from tests.integration.finetune import tiny
from tests.integration.finetune.test_run import losses


def test_two_workers_learn_what_one_does(
    model: Path, facts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    seen: list[Event] = []
    both = tiny.config(model, facts, workers=2, batch_size=2, max_steps=5)
    result = finetune.run(both, tmp_path / "both", seen.append)
    assert result.exit_status == 0, result.summary.error
    alone = tiny.config(model, facts, accumulation=2, batch_size=2, max_steps=5)
    assert finetune.run(alone, tmp_path / "alone").exit_status == 0
    assert losses(tmp_path / "both") == pytest.approx(losses(tmp_path / "alone"), abs=1e-4)
    assert [each.data["step"] for each in seen if each.type == "metrics"] == [1, 2, 3, 4, 5]
