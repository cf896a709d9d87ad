"""A job's wishes as the configuration of one `finetune` run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

import configs
from configs import ConfigError, parse
from finetune.config import FinetuneConfig
from serving.config import FakeConfig, ModelConfig, VllmConfig
from serving.errors import CorralError
from serving.finetuning.settings import Settings
from serving.store.jobs import Job

SHIPPED = Path(configs.__file__).parent / "finetune"
AUTO = "auto"


class CannotTrain(CorralError):
    """The stack's own settings allow no run of this kind."""


def base_run(settings: Settings, model: str, method: str) -> FinetuneConfig:
    """The run that jobs of this model begin from. `method` is `supervised` or `dpo`.

    Raises CannotTrain.
    """
    overrides = _dotted(settings.config.finetuning.settings)
    values: dict[str, Any] = {"model": model}
    path = _file(settings.config.finetuning.config, model, method)
    try:
        if path is not None:
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if method == "dpo":
            train = values.setdefault("train", {})
            if train.get("method") != "dpo":
                # The rate of imitation is a hundred times too high for preferences.
                train |= {"method": "dpo", "learning_rate": train.get("learning_rate", 2e-4) / 20}
        return parse(FinetuneConfig, values, overrides, where=str(path or "finetuning.settings"))
    except (OSError, ValueError, yaml.YAMLError, ConfigError) as exc:
        raise CannotTrain(f"finetuning.config of this stack is at fault: {exc}") from exc


def resolved(settings: Settings, model: str, method: str, asked: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's hyperparameters with a value in place of every "auto". Raises CannotTrain."""
    train = base_run(settings, model, method).train
    values: dict[str, Any] = {
        "n_epochs": int(train.epochs) if train.epochs == int(train.epochs) else train.epochs,
        "batch_size": train.batch_size * train.accumulation,
        "learning_rate_multiplier": 1.0,
    }
    if method == "dpo":
        values["beta"] = train.beta
    given = {name: value for name, value in asked.items() if value not in (None, AUTO)}
    return values | given


def run_config(
    settings: Settings, job: Job, training: Path, validation: Path | None, live: Path | None
) -> FinetuneConfig:
    """The whole configuration. `live` is the adapter that is served now. Raises CannotTrain."""
    method: str = job.method["type"]
    base = base_run(settings, job.model, method)
    wished = resolved(settings, job.model, method, job.hyperparameters)
    model = next(each for each in settings.config.models if each.name == job.model)
    values = base.model_dump(mode="json", exclude_unset=True)
    values["model"] = settings.weights.get(job.model, model.weights)
    values |= {"name": job.id, "seed": job.seed}
    _into(values, "data", {"train": [_source(training)]})
    if validation is not None:
        _into(values, "data", {"validation": [_source(validation)]})
    elif "data.validation_fraction" not in settings.config.finetuning.settings:
        # As at OpenAI, all of the training file is learnt, unless the operator says otherwise.
        _into(values, "data", {"validation_fraction": 0.0})
    train: dict[str, Any] = {
        "epochs": wished["n_epochs"],
        "learning_rate": base.train.learning_rate * wished["learning_rate_multiplier"],
    }
    asked = job.hyperparameters.get("batch_size")
    if asked not in (None, AUTO):
        train |= _batch(base, int(asked))
    if method == "dpo":
        train["beta"] = wished["beta"]
    _into(values, "train", train)
    _into(values, "serve", {"max_rank": _max_rank(model), "base": job.model})
    _into(values, "evaluation", {"live_adapter": None if live is None else str(live)})
    try:
        return parse(FinetuneConfig, values, where=f"the run of {job.id}")
    except ConfigError as exc:
        raise CannotTrain(str(exc)) from exc


def _batch(base: FinetuneConfig, examples: int) -> dict[str, int]:
    """`examples` a step, of which as many at once as the base run computes at once."""
    at_once = min(base.train.batch_size, examples)
    while examples % at_once:
        at_once -= 1
    return {"batch_size": at_once, "accumulation": examples // at_once}


def _max_rank(model: ModelConfig) -> int:
    assert isinstance(model.engine, VllmConfig | FakeConfig)
    return model.engine.lora.max_rank


def _file(name: str | None, model: str, method: str) -> Path | None:
    if name is None:
        stem = model.rpartition("/")[2]
        for candidate in (f"{stem}-dpo", stem) if method == "dpo" else (stem,):
            if (SHIPPED / f"{candidate}.yaml").is_file():
                return SHIPPED / f"{candidate}.yaml"
        return None
    path = Path(name)
    return path if path.suffix in (".yaml", ".yml") else SHIPPED / f"{name}.yaml"


def _source(path: Path) -> dict[str, str]:
    return {"kind": "file", "path": str(path)}


def _into(values: dict[str, Any], section: str, more: dict[str, Any]) -> None:
    values[section] = {**(values.get(section) or {}), **more}


def _dotted(settings: dict[str, Any]) -> list[str]:
    return [f"{name}={yaml.safe_dump(value)}" for name, value in settings.items()]
