"""Where the base model's files are."""

from __future__ import annotations

import os
from pathlib import Path

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
