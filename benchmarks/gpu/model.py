"""Writes a model directory without weights: an architecture's config.json and a tokenizer.

An engine that is told `load_format: dummy` fills it with random weights. Speed does not
depend on their values; what comes out is noise.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from benchmarks.gpu.context import Model
from configs import ConfigError, StrictModel

__all__ = ["ModelConfig", "prepare"]

BYTES = 256
SPECIAL = ("<|python_tag|>", "<|begin_of_text|>", "<|end_of_text|>")


class ModelConfig(StrictModel):
    """The model that is measured."""

    name: str
    """What requests call it; the name in the serve configurations."""
    directory: str = ""
    """An existing model: a path, or a name in `$CORRAL_HOME/models`."""
    architecture: dict[str, Any] = Field(default_factory=dict)
    """Fields of config.json (transformers' LlamaConfig), to write a directory without weights."""


def prepare(config: ModelConfig, out: Path) -> Model:
    """The model's directory, written below `out` unless it exists. Raises ConfigError."""
    if config.architecture:
        path = (out / "models" / config.name).absolute()
        write_architecture(path, config.architecture)
    else:
        path = _existing(config)
    fields = json.loads((path / "config.json").read_text(encoding="utf-8"))
    # Special tokens lie at either end of the vocabularies that are used here.
    margin = min(256, fields["vocab_size"] // 16)
    return Model(config.name, str(path), fields, margin, fields["vocab_size"] - 2 * margin)


def write_architecture(path: Path, architecture: Mapping[str, Any]) -> None:
    """config.json, a byte-level tokenizer with the vocabulary's size, an empty weights file."""
    from safetensors.numpy import save_file

    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(dict(architecture), indent=1) + "\n")
    _write_tokenizer(path, architecture["vocab_size"])
    save_file({}, path / "model.safetensors", metadata={"format": "pt"})


def _write_tokenizer(path: Path, vocab: int) -> None:
    """One token a byte, then filler up to `vocab`, of which the last two begin and end a text.

    Special tokens have Llama 3's names: vLLM's parser of its tool calls looks for one.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"<filler-{index}>" for index in range(vocab - BYTES - len(SPECIAL)))]
    words += SPECIAL
    tokenizer = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(path / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[-2],
        "eos_token": SPECIAL[-1],
        "chat_template": "{% for message in messages %}{{ message['content'] }}{% endfor %}",
    }
    (path / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")


def _existing(config: ModelConfig) -> Path:
    home = Path(os.environ.get("CORRAL_HOME") or "~/.corral").expanduser()
    for path in (Path(config.directory).expanduser(), home / "models" / config.directory):
        if config.directory and (path / "config.json").is_file():
            return path.absolute()
    raise ConfigError(
        f"no model {config.directory!r}, neither as a path nor in {home / 'models'}: prepare it "
        "with `corral serve`, or give model.architecture"
    )
