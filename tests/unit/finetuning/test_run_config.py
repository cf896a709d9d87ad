"""What a client asks for becomes the settings of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune.config import FinetuneConfig
from serving.config import LoraConfig, ModelConfig, ServeConfig, VllmConfig
from serving.finetuning.config import FinetuningConfig
from serving.finetuning.run_config import CannotTrain, base_run, resolved, run_config
from serving.finetuning.settings import Settings
from serving.home import Home
from serving.store.jobs import Job

DATA = Path("training_file")


def settings(**finetuning: Any) -> Settings:
    engine = VllmConfig(lora=LoraConfig(max_loras=2, max_rank=32))
    model = ModelConfig(name="smollm2-135m", engine=engine)
    config = ServeConfig(models=(model,), finetuning=FinetuningConfig(**finetuning))
    return Settings(config, Home(Path("/home")), {"smollm2-135m": "/weights"})


def made(stack: Settings, method: str = "supervised", **wished: Any) -> FinetuneConfig:
    values = resolved(stack, "smollm2-135m", method, wished)
    asked = {"type": method, method: {"hyperparameters": values}}
    job = Job("default", "smollm2-135m", asked, "file-1", seed=5, id="ftjob-1")
    return run_config(stack, job, DATA, None, Path("/live"))


def test_auto_is_what_the_stacks_own_run_says() -> None:
    stack = settings()
    base, run = base_run(stack, "smollm2-135m", "supervised"), made(stack, n_epochs="auto")
    assert run.train == base.train
    assert (run.model, run.seed, run.serve.base) == ("/weights", 5, "smollm2-135m")
    assert (run.serve.max_rank, run.evaluation.live_adapter) == (32, "/live")
    assert [source.path for source in run.data.train] == ["training_file"]


def test_a_multiplier_multiplies_the_default_rate() -> None:
    stack = settings()
    base = base_run(stack, "smollm2-135m", "supervised").train.learning_rate
    assert made(stack, learning_rate_multiplier=0.5).train.learning_rate == base / 2


@pytest.mark.parametrize(
    ("wanted", "at_once", "times"), [(4, 4, 1), (8, 8, 1), (32, 8, 4), (9, 3, 3)]
)
def test_a_step_has_as_many_examples_as_asked(wanted: int, at_once: int, times: int) -> None:
    train = made(settings(), batch_size=wanted).train
    assert (train.batch_size, train.accumulation) == (at_once, times)


def test_preferences_begin_from_a_run_of_their_own() -> None:
    run = made(settings(), "dpo", beta=0.3, n_epochs=2)
    assert (run.train.method, run.train.beta, run.train.epochs) == ("dpo", 0.3, 2)
    assert (
        run.train.learning_rate
        < base_run(settings(), "smollm2-135m", "supervised").train.learning_rate
    )


def test_settings_of_the_stack_win_over_the_file() -> None:
    stack = settings(settings={"lora.rank": 8, "evaluation.enabled": False})
    run = made(stack)
    assert (run.lora.rank, run.evaluation.enabled) == (8, False)


@pytest.mark.parametrize(
    "finetuning",
    [{"settings": {"lora.rank": 64}}, {"settings": {"lora.rnak": 8}}, {"config": "nonesuch"}],
    ids=["rank", "typo", "file"],
)
def test_settings_that_allow_no_run_are_told(finetuning: dict[str, Any]) -> None:
    with pytest.raises(CannotTrain):
        made(settings(**finetuning))
