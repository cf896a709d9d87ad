"""Where the base model's files are, which they are, and its tokenizer."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from finetune.config import DataConfig
from finetune.data.tokenizer import ChatTokenizer
from finetune.errors import ModelUnavailable, TokenizerUnavailable

_MANIFEST = "manifest.json"
_BLOCK = 1 << 22


def models_folder() -> Path:
    """`$CORRAL_HOME/models`, by default in `~/.corral`."""
    return home() / "models"


def home() -> Path:
    """`$CORRAL_HOME`, by default `~/.corral`."""
    return Path(os.environ.get("CORRAL_HOME") or "~/.corral").expanduser().absolute()


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


def base_revision(folder: Path) -> str:
    """`sha256:…` over the config and the weights, from the manifest that a prepared model has,
    or else by reading them. Raises ModelUnavailable where there are no safetensors."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelUnavailable(
            f"{folder} holds no *.safetensors: name the folder of a whole model, not only of its "
            "tokenizer"
        )
    known = _known(folder)
    total = hashlib.sha256()
    for path in [folder / "config.json", *files]:
        total.update(f"{path.name} {known.get(path.name) or _sha256(path)}\n".encode())
    return f"sha256:{total.hexdigest()}"


def _known(folder: Path) -> dict[str, str]:
    """Hashes in the manifest of files that still have the size noted there."""
    try:
        listed: Any = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["files"]
        return {
            name: str(each["sha256"])
            for name, each in listed.items()
            if (folder / name).stat().st_size == each["size"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                found.update(block)
    except OSError as exc:
        raise ModelUnavailable(f"{path} cannot be read: {exc.strerror}") from exc
    return found.hexdigest()
