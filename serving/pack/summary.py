"""The figures of a bundle as JSON, to be kept: what takes the space, and the parts."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serving.pack.manifest import Manifest

MB = 1_000_000


def write_summary(manifest: Manifest, command: Sequence[str], path: Path) -> None:
    """Write the figures to `path`; sizes in MB of 10^6 bytes, packages by what they take."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(summary(manifest, command), indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def summary(manifest: Manifest, command: Sequence[str]) -> dict[str, Any]:
    """The manifest without its digests and file names."""
    kept = {"revision", "target", "python", "platform", "arch", "torch_from_host", "lock",
            "compression", "on_host", "replaces", "omitted"}  # fmt: skip
    ordered = sorted(manifest.packages, key=lambda package: -(package.packed_bytes or 0))
    return {
        "benchmark": f"{manifest.target}-bundle",
        "date": time.strftime("%Y%m%d-%H%M%S", time.gmtime()),
        "command": shlex.join(["corral", *command]),
        **manifest.model_dump(mode="json", include=kept),
        "total_mb": _mb(manifest.total_bytes),
        "parts": [{"name": part.name, "mb": _mb(part.size)} for part in manifest.parts],
        "packages": [
            {
                "name": package.name,
                "version": package.version,
                "wheel_mb": _mb(package.origin_bytes),
                "packed_mb": _mb(package.packed_bytes),
                "removed_mb": {entry.reason: _mb(entry.bytes) for entry in package.removed},
                "other_gpus_mb": _mb(package.blanked_bytes),
            }
            for package in ordered
        ],
    }


def _mb(size: int | None) -> float | None:
    return None if size is None else round(size / MB, 3)
