"""Writes PEFT adapters with random weights, so that nothing has to be trained to measure them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from benchmarks.gpu.limits import Shape

__all__ = ["write_adapters"]

SCALE = 0.5
"""Standard deviation. Far above a trained adapter's: it has to show even over a base model
of random weights, or the engine would take it for an adapter that does nothing."""


def write_adapters(
    folder: Path, shape: Shape, base: str, rank: int, count: int, name: str = "random"
) -> list[str]:
    """`folder/<name>-<i>/1/`, all linear layers, for the model that `base` names.

    The matrices are stored as float16; adapters share one set of drawn numbers, each from
    another place in it, so that 64 of them take seconds. Returns their names.
    """
    names = [f"{name}-{index}" for index in range(count)]
    largest = max(max(sizes) for sizes in shape.linear.values()) * rank
    pool = np.random.default_rng(0).normal(0, SCALE, largest * 2).astype(np.float16)
    for index, adapter in enumerate(names):
        path = folder / adapter / "1"
        if not path.exists():
            _write(path, shape, base, rank, pool, index)
    return names


def _write(
    path: Path, shape: Shape, base: str, rank: int, pool: NDArray[np.float16], index: int
) -> None:
    draw = np.random.default_rng(index + 1)
    tensors = {}
    for layer in range(shape.layers):
        for module, (inputs, outputs) in shape.linear.items():
            for side, size in (("A", (rank, inputs)), ("B", (outputs, rank))):
                length = size[0] * size[1]
                start = int(draw.integers(0, len(pool) - length))
                key = f"base_model.model.model.layers.{layer}.{module}.lora_{side}.weight"
                tensors[key] = pool[start : start + length].reshape(size)
    staging = path.parent / ".new"
    staging.mkdir(parents=True, exist_ok=True)
    save_file(tensors, staging / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "target_modules": sorted(module.rpartition(".")[2] for module in shape.linear),
        "bias": "none",
        "inference_mode": True,
    }
    (staging / "adapter_config.json").write_text(json.dumps(settings))
    staging.rename(path)
