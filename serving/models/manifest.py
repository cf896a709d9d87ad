"""The manifest of a prepared model: every file with its size and SHA-256.

It is the last file written into a model's directory, and the directory is
renamed into place after that; so a directory under its final name is whole,
and what is wrong with it later happened to it later.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

NAME = "manifest.json"


@dataclass(frozen=True)
class FileRecord:
    """One file. `sha256` is hexadecimal, `size` in bytes."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a prepared model was made from, and its files by path relative to its directory."""

    recipe: str
    files: dict[str, FileRecord]


def write(directory: Path, recipe: str) -> None:
    """Record and flush to disk every file below `directory`."""
    files: dict[str, FileRecord] = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            files[str(path.relative_to(directory))] = FileRecord(path.stat().st_size, sha256(path))
            _flush(path)
    target = directory / NAME
    text = json.dumps(asdict(Manifest(recipe, files)), indent=2)
    target.write_text(text + "\n", encoding="utf-8")
    _flush(target)


def read(directory: Path) -> Manifest | None:
    """The manifest in `directory`; None when there is none or it cannot be understood."""
    try:
        data = json.loads((directory / NAME).read_text(encoding="utf-8"))
        files = {name: FileRecord(**record) for name, record in data["files"].items()}
        return Manifest(data["recipe"], files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def verify(directory: Path, *, checksums: bool = False) -> list[str]:
    """What is wrong with a prepared model, one line a file; empty when all is well.

    Presence and size always; content too with `checksums` (about 1 s per GB).
    """
    manifest = read(directory)
    if manifest is None:
        return [f"{directory / NAME} is missing or unreadable"]
    faults: list[str] = []
    for name, record in manifest.files.items():
        path = directory / name
        if not path.is_file():
            faults.append(f"{path} is missing")
        elif path.stat().st_size != record.size:
            faults.append(f"{path} has {path.stat().st_size} bytes instead of {record.size}")
        elif checksums and sha256(path) != record.sha256:
            faults.append(f"{path} has changed: its checksum differs from the manifest's")
    return faults


def sha256(path: Path) -> str:
    """Digest of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
