"""Which code did the work."""

from __future__ import annotations

import hashlib
import importlib.metadata
from pathlib import Path

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "safetensors")


def code_version() -> str:
    """`0.1.0+` and the beginning of a hash of this package's sources, so that a changed working
    tree has another version too."""
    root = Path(__file__).parent
    total = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        total.update(f"{path.relative_to(root)}\n".encode())
        total.update(path.read_bytes())
    return f"{version_of('corral') or '0'}+{total.hexdigest()[:12]}"


def package_versions() -> dict[str, str]:
    """Of the packages that the arithmetic is in, as far as they are installed."""
    found = {name: version_of(name) for name in _PACKAGES}
    return {name: version for name, version in found.items() if version}


def version_of(name: str) -> str | None:
    """Of an installed package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
