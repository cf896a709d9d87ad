"""The shipped fine-tuning configurations, and the help that every field of them has."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import configs
import finetune.config
from configs import ConfigError, StrictModel, load, parse
from finetune.config import FinetuneConfig, HubSource, LoraConfig

FILES = sorted((Path(configs.__file__).parent / "finetune").glob("*.yaml"))
MODELS = [
    member
    for _, member in inspect.getmembers(finetune.config, inspect.isclass)
    if issubclass(member, StrictModel) and member is not StrictModel
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_shipped_file_loads(path: Path) -> None:
    assert load(FinetuneConfig, path).model
    assert path.read_text().startswith("#"), "say first what the file is for"


def test_the_small_model_has_one() -> None:
    assert "smollm2-135m" in {path.stem for path in FILES}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_config_is_documented(model: type[StrictModel]) -> None:
    assert model.__doc__
    fields = model.model_fields.items()
    assert [name for name, field in fields if name != "kind" and not field.description] == []


def test_a_hub_data_set_is_called_by_all_that_selects_it() -> None:
    assert HubSource(name="a/b").path == "a/b[train]"
    assert HubSource(name="a/b", subset="s", revision="abc", split="x").path == "a/b:s@abc[x]"


@pytest.mark.parametrize("field", ["messages", "tools", "add_generation_prompt"])
def test_template_variables_cannot_replace_the_data(field: str) -> None:
    with pytest.raises(ConfigError, match=f"cannot set {field}"):
        parse(FinetuneConfig, {"model": "m", "data": {"chat_template_kwargs": {field: 1}}})


def test_a_rank_above_the_servers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"lora.rank 128 is more than the server loads"):
        parse(FinetuneConfig, {"model": "m", "lora": {"rank": 128}})
    assert parse(FinetuneConfig, {"model": "m", "lora": {"rank": 128}, "serve": {"max_rank": 128}})


@pytest.mark.parametrize("option", ["use_dora", "modules_to_save", "bias"])
def test_what_cannot_be_served_is_no_option(option: str) -> None:
    with pytest.raises(ConfigError, match=f"lora.{option}: unknown key"):
        parse(FinetuneConfig, {"model": "m", "lora": {option: True}})


def test_a_misspelt_key_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        parse(FinetuneConfig, {"model": "m", "train": {"learing_rate": 1}})


def test_embeddings_take_no_adapter() -> None:
    with pytest.raises(ConfigError, match="lm_head: adapters of embeddings"):
        parse(FinetuneConfig, {"model": "m", "lora": {"target_modules": ["q_proj", "lm_head"]}})


def test_dpo_needs_a_rate_of_its_own() -> None:
    with pytest.raises(ConfigError, match="dpo needs its own learning_rate"):
        parse(FinetuneConfig, {"model": "m", "train": {"method": "dpo"}})


@pytest.mark.parametrize("model", ["smollm2-135m", "/models/smollm2-135m/", "smollm2-135m/"])
def test_a_run_is_named_after_its_model(model: str) -> None:
    assert parse(FinetuneConfig, {"model": model}).run_name == "smollm2-135m"
    assert parse(FinetuneConfig, {"model": model, "name": "mine"}).run_name == "mine"


def test_scaling_is_over_the_rank_or_its_root() -> None:
    assert LoraConfig(rank=16, alpha=32).scaling == 2
    assert LoraConfig(rank=16, alpha=32, rslora=True).scaling == 8


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({}, "give either choices, or low and high"),
        ({"choices": [1], "low": 1, "high": 2}, "give either"),
        ({"low": 2, "high": 1}, "low 2.0 is not below high 1.0"),
        ({"low": 0, "high": 1, "log": True}, "log needs a low above 0"),
    ],
)
def test_ranges_of_a_sweep_are_one_kind(settings: dict[str, object], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        parse(FinetuneConfig, {"model": "m", "sweep": {"space": {"seed": settings}}})
