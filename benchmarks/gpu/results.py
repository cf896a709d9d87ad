"""What a step leaves behind: `DIR/gpu-<step>.json`, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.report import write

__all__ = ["key_of", "read_all", "read_result", "result_path", "write_result"]

PREFIX = "gpu-"
FINAL = ("ok", "missing")
"""States that the same inputs would only reach again: such a step is not run twice."""


def result_path(out: Path, step: str) -> Path:
    """Where the step's result is kept."""
    return out / f"{PREFIX}{step}.json"


def key_of(inputs: Mapping[str, Any]) -> str:
    """Digest of all that a step is given; another digest, and it runs anew."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def write_result(out: Path, result: Mapping[str, Any]) -> Path:
    """Write under a temporary name and rename: a reader never sees half a file."""
    path = result_path(out, result["step"])
    staging = path.with_suffix(f".{os.getpid()}.new")
    write(staging, result)
    staging.replace(path)
    return path


def read_result(out: Path, step: str) -> dict[str, Any] | None:
    """The step's last result, or None when there is none that can be read."""
    try:
        found = json.loads(result_path(out, step).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("step") == step else None


def read_all(out: Path) -> dict[str, dict[str, Any]]:
    """Every result in the folder, by step."""
    names = [path.stem.removeprefix(PREFIX) for path in sorted(out.glob(f"{PREFIX}*.json"))]
    return {name: found for name in names if (found := read_result(out, name)) is not None}
