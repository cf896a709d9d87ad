"""The card as its driver describes it; changes no setting of it."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version

__all__ = ["gpus", "versions"]

FIELDS = (
    "name",
    "driver_version",
    "memory.total",
    "memory.used",
    "clocks.sm",
    "clocks.mem",
    "clocks.max.sm",
    "clocks.max.mem",
    "power.limit",
    "power.draw",
    "temperature.gpu",
    "compute_cap",
)
PACKAGES = (
    "accelerate",
    "bitsandbytes",
    "flashinfer-python",
    "numpy",
    "peft",
    "sentence-transformers",
    "tokenizers",
    "transformers",
    "triton",
)
"""Besides those that every benchmark's `environment` names."""


def gpus() -> list[dict[str, str]]:
    """One mapping a card, nvidia-smi's field names; empty where there is none."""
    command = ["nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [
        dict(zip(FIELDS, (cell.strip() for cell in line.split(",")), strict=False))
        for line in done.stdout.splitlines()
    ]


def versions() -> dict[str, str]:
    """Installed versions of what the steps use."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
