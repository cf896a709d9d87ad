"""Writes tiny base models' configs and PEFT adapter directories, sound and unsound, without torch.

base = write_base(tmp_path / "weights")
write_adapter(home.adapters / "pirate" / "1", base="tiny")
write_adapter(path, config={"use_dora": True})            # one setting wrong
(path / WEIGHTS).write_bytes(safetensors_bytes({...}))    # any header at all
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from serving.adapters import ModelShape

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
TINY: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_hidden_layers": 2,
    "vocab_size": 48,
}
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

Tensors = dict[str, NDArray[np.float32]]


def write_base(path: Path, **overrides: Any) -> Path:
    """Write the `config.json` of a two-layer Llama; a value None leaves its key out."""
    path.mkdir(parents=True, exist_ok=True)
    config = {key: value for key, value in (TINY | overrides).items() if value is not None}
    (path / "config.json").write_text(json.dumps(config))
    return path


def shape_of(**overrides: Any) -> ModelShape:
    """Dimensions of the model that `write_base` writes."""
    shape = ModelShape.from_config(TINY | overrides)
    assert shape is not None
    return shape


def adapter_config(
    base: str = "tiny", rank: int = 4, modules: Sequence[str] = ("q_proj", "v_proj")
) -> dict[str, Any]:
    """An `adapter_config.json` with the settings that PEFT writes."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "target_modules": list(modules),
        "bias": "none",
        "modules_to_save": None,
        "use_dora": False,
        "use_rslora": False,
        "init_lora_weights": True,
        "rank_pattern": {},
        "alpha_pattern": {},
        "layers_to_transform": None,
        "inference_mode": True,
    }


def adapter_tensors(
    shape: ModelShape,
    rank: int = 4,
    modules: Sequence[str] = ("q_proj", "v_proj"),
    seed: int = 0,
) -> Tensors:
    """Random A `(rank, inputs)` and B `(outputs, rank)` for every layer, float32."""
    draw = np.random.default_rng(seed)
    tensors: Tensors = {}
    for layer in range(shape.layers):
        for name in modules:
            block = "self_attn" if name[0] in "qkvo" else "mlp"
            module = f"model.layers.{layer}.{block}.{name}"
            dims = shape.dims(module)
            for side, size in (("A", (rank, dims.inputs)), ("B", (dims.outputs, rank))):
                key = f"base_model.model.{module}.lora_{side}.weight"
                tensors[key] = draw.normal(size=size).astype(np.float32)
    return tensors


def write_adapter(
    path: Path,
    *,
    base: str = "tiny",
    rank: int = 4,
    modules: Sequence[str] = ("q_proj", "v_proj"),
    shape: ModelShape | None = None,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    tensors: Tensors | None = None,
) -> Path:
    """Write a PEFT directory whole and rename it into place.

    `config` overrides single settings, `tensors` replaces all the weights.
    """
    if tensors is None:
        tensors = adapter_tensors(shape or shape_of(), rank, modules, seed)
    staging = path.parent / f".{path.name}.new"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    settings = adapter_config(base, rank, modules) | dict(config or {})
    (staging / CONFIG).write_text(json.dumps(settings))
    save_file(tensors, staging / WEIGHTS)
    staging.rename(path)
    return path


def safetensors_bytes(header: Mapping[str, Any] | bytes, data: bytes = b"") -> bytes:
    """A safetensors file with any header, whether it makes sense or not."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def age(path: Path, seconds: float = 60.0) -> None:
    """Set the times of what is new under `path` into the past, as if written long ago."""
    then = time.time() - seconds
    for entry in [*path.rglob("*"), path]:
        if entry.lstat().st_mtime > then + seconds / 2:
            os.utime(entry, (then, then), follow_symlinks=False)
