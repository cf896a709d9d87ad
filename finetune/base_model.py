"""Where the base model's files are, and its tokenizer."""

from __future__ import annotations

import os
from pathlib import Path

from finetune.config import DataConfig
from finetune.data.tokenizer import ChatTokenizer
from finetune.errors import TokenizerUnavailable


def models_folder() -> Path:
    """`$CORRAL_HOME/models`, by default in `~/.corral`."""
    home = os.environ.get("CORRAL_HOME") or "~/.corral"
    return Path(home).expanduser().absolute() / "models"


def find_model(name: str, models: Path) -> Path:
    """The folder that `name` is, or names in `models`. Raises TokenizerUnavailable."""
    for folder in (models / name, Path(name)):
        if (folder / "tokenizer.json").is_file():
            return folder
    raise TokenizerUnavailable(
        f"no model {name!r}: neither {models / name} nor a folder {name!r} has a tokenizer.json. "
        "Name the folder with --model, or prepare the built-in model with "
        "`python -m serving.models`"
    )


def load_tokenizer(data: DataConfig, model: Path) -> ChatTokenizer:
    """The tokenizer of a model's folder with the template that the data's configuration names."""
    return ChatTokenizer.load(
        model,
        template=None if data.chat_template is None else Path(data.chat_template),
        variables=dict(data.chat_template_kwargs),
    )
