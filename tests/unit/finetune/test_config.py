"""The shipped fine-tuning configurations, and the help that every field of them has."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import configs
import finetune.config
from configs import ConfigError, StrictModel, load, parse
from finetune.config import FinetuneConfig, HubSource

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
