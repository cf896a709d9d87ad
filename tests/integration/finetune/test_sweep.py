"""A search over a tiny model: real trials in child processes, stopped and gone on with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs import ConfigError
from finetune.config import FinetuneConfig, SweepConfig
from finetune.errors import RunConflict
from finetune.events import EventLog
from finetune.stop import Stop
from finetune.sweep.study import BEST, sweep
from finetune.sweep.trial import best_loss
from tests.integration.finetune import tiny

pytest.importorskip("optuna")


def searching(model: Path, data: Path, space: object, trials: int) -> FinetuneConfig:
    config = tiny.config(model, data, max_steps=3, evaluate_every=1)
    found = SweepConfig.model_validate({"space": space, "trials": trials})
    return config.model_copy(update={"sweep": found})


SPACE = {
    "train.learning_rate": {"low": 1e-6, "high": 1e-2, "log": True},
    "lora.rank": {"choices": [2, 4]},
}


def test_a_search_stopped_goes_on_and_names_the_best(
    model: Path, facts: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    stop, folder = Stop(), tmp_path / "search"

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("trial 1:"):
            stop.request()

    first = sweep(searching(model, facts, SPACE, 2), folder, say, stop)
    assert first.interrupted
    assert [trial.state for trial in first.trials] == ["complete", "running"]
    held = first.trials[1].settings

    done = sweep(searching(model, facts, SPACE, 2), folder, said.append)
    assert not done.interrupted
    assert [trial.state for trial in done.trials] == ["complete", "complete"]
    assert done.trials[1].settings == held
    best = json.loads((folder / BEST).read_text())
    losses = {trial.folder: best_loss(Path(trial.folder)) for trial in done.trials}
    assert best["valid_loss"] == min(loss for loss in losses.values() if loss is not None)
    assert losses[best["folder"]] == best["valid_loss"]
    assert (Path(best["adapter"]) / "adapter_model.safetensors").is_file()

    other = {"lora.rank": {"choices": [2, 4]}}
    with pytest.raises(RunConflict, match="holds a search with other settings"):
        sweep(searching(model, facts, other, 2), folder)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({}, "sweep.space is empty"),
        ({"train.learing_rate": {"choices": [1e-3]}}, "did you mean 'learning_rate'"),
        ({"lora.rank": {"low": 4, "high": 128, "whole": True}}, "value 128: "),
    ],
)
def test_a_space_that_cannot_be_is_refused_before_the_first_trial(
    model: Path, facts: Path, tmp_path: Path, space: object, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        sweep(searching(model, facts, space, 1), tmp_path / "search")
    assert not (tmp_path / "search").exists()


def test_the_lowest_loss_of_a_run_counts(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    for step, loss in enumerate((2.0, 1.0, 1.5)):
        log.emit("metrics", "", {"step": step, "full_valid_loss": loss})
    assert best_loss(tmp_path) == 1.0
