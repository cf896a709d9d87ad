"""Publishes adapters into a home, sound ones and ones that must be refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from serving.home import Home

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

Change = Callable[[str, NDArray[np.float32]], NDArray[np.float32]]


def publish(
    home: Home,
    name: str,
    version: str,
    source: Path,
    *,
    config: Mapping[str, Any] | None = None,
    change: Change | None = None,
) -> Path:
    """Copy the PEFT directory `source`, change it, and rename it into place whole."""
    staging = home.root / f"staging-{name}-{version}"
    shutil.copytree(source, staging)
    settings = json.loads((staging / CONFIG).read_text()) | dict(config or {})
    (staging / CONFIG).write_text(json.dumps(settings))
    if change is not None:
        tensors = load_file(staging / WEIGHTS)
        save_file({key: change(key, value) for key, value in tensors.items()}, staging / WEIGHTS)
    target = home.adapters / name / version
    target.parent.mkdir(parents=True, exist_ok=True)
    return staging.rename(target)


def scaled(factor: float) -> Change:
    """The adapter's effect times `factor`."""

    def change(key: str, value: NDArray[np.float32]) -> NDArray[np.float32]:
        return value * np.float32(factor) if "lora_B" in key else value

    return change


def noisy(seed: int, scale: float) -> Change:
    """Another adapter of the same shape: noise on every B, in proportion to its size."""
    draw = np.random.default_rng(seed)

    def change(key: str, value: NDArray[np.float32]) -> NDArray[np.float32]:
        if "lora_B" not in key:
            return value
        noise = draw.normal(size=value.shape) * scale * np.abs(value).mean()
        changed: NDArray[np.float32] = (value + noise).astype(np.float32)
        return changed

    return change
