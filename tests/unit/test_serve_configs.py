"""The shipped serve configurations, and the help that every field of them has."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import configs
import serving.config
from configs import ConfigError, StrictModel, load, parse
from serving.config import EmbeddingConfig, ModelConfig, ServeConfig

FOLDER = Path(configs.__file__).parent / "serve"
FILES = sorted(FOLDER.glob("*.yaml"))
MODELS = [
    member
    for _, member in inspect.getmembers(serving.config, inspect.isclass)
    if issubclass(member, StrictModel) and member is not StrictModel
]
FAKE = {"name": "m", "engine": {"kind": "fake"}}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_shipped_file_loads(path: Path) -> None:
    assert load(ServeConfig, path).models
    assert path.read_text().startswith("#"), "say first what the file is for"


def test_the_files_that_are_promised_exist() -> None:
    names = {path.stem for path in FILES}
    assert {"local", "fake", "llama-3.1-8b", "llama-3.3-70b-tp4"} <= names
    assert any(name.startswith("qwen") for name in names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_shipped_file_listens_on_loopback(path: Path) -> None:
    assert load(ServeConfig, path).gateway.host == "127.0.0.1"


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_config_is_documented(model: type[StrictModel]) -> None:
    assert model.__doc__
    bare = [
        name
        for name, field in model.model_fields.items()
        if name != "kind" and not field.description
    ]
    assert bare == []


def test_names_of_models_must_differ() -> None:
    with pytest.raises(ConfigError, match="used twice: m"):
        parse(ServeConfig, {"models": [FAKE, FAKE]})


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a@b", "-a", "../a"])
def test_a_name_that_would_collide_with_adapters_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"models\.0\.name"):
        parse(ServeConfig, {"models": [FAKE | {"name": name}]})


def test_no_models_is_refused() -> None:
    with pytest.raises(ConfigError, match="models"):
        parse(ServeConfig, {"models": []})


def test_fewer_replicas_than_the_least_are_refused() -> None:
    replicas = {"replicas": {"min": 3, "max": 2}}
    with pytest.raises(ConfigError, match=r"min \(3\) is larger than max \(2\)"):
        parse(ServeConfig, {"models": [FAKE | replicas]})


def test_an_unknown_engine_option_names_the_near_one() -> None:
    engine = {"kind": "vllm", "max_model_length": 9}
    with pytest.raises(ConfigError, match="did you mean 'max_model_len'"):
        parse(ServeConfig, {"models": [{"name": "m", "engine": engine}]})


def test_a_worker_extension_would_replace_the_one_that_adapters_need() -> None:
    extra = {"extra_args": {"worker_extension_cls": "mine.Worker"}}
    parse(ServeConfig, {"models": [{"name": "m", "engine": {"kind": "vllm", **extra}}]})
    engine = {"kind": "vllm", "lora": {"max_loras": 1}, **extra}
    with pytest.raises(ConfigError, match="worker_extension_cls"):
        parse(ServeConfig, {"models": [{"name": "m", "engine": engine}]})


def test_a_cluster_of_machines_needs_a_store_that_all_can_reach() -> None:
    several = {"models": [FAKE], "cluster": {"address": "auto"}}
    with pytest.raises(ConfigError, match=r"store\.url"):
        parse(ServeConfig, several)
    parse(ServeConfig, several | {"store": {"url": "postgresql://host/corral"}})


def test_the_weights_are_the_source_or_the_name() -> None:
    engine = EmbeddingConfig()
    assert ModelConfig(name="a", engine=engine).weights == "a"
    assert ModelConfig(name="a", source="org/a", engine=engine).weights == "org/a"
