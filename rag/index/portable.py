"""Snapshots that any index can be restored from: one ZIP file with the manifest, the chunks (JSON
Lines) and the vectors (float32), and a checksum of each. BM25's weights follow from the text.

A snapshot of the embedded engine can be restored into a server, and the other way round."""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from rag.errors import IndexUnavailable
from rag.index import points as layout
from rag.index.manifest import Manifest
from rag.types import Chunk, Scope, Vectors

__all__ = ["Exportable", "Stored", "read_manifest", "restore", "snapshot"]

_BATCH = 512
_PARTS = ("chunks.jsonl", "vectors.f32")


@dataclass(frozen=True, slots=True)
class Stored:
    """A chunk as an index holds it."""

    scope: Scope
    chunk: Chunk
    vector: NDArray[np.float32] | None
    """None for a parent."""


class Exportable(Protocol):
    """What a snapshot needs of an index."""

    @property
    def manifest(self) -> Manifest: ...

    def export(self) -> Iterator[Stored]: ...

    def upsert(self, scope: Scope, chunks: list[Chunk], vectors: Vectors) -> None: ...

    def count(self) -> int: ...


def snapshot(index: Exportable, target: Path) -> int:
    """Write everything in the index to `target`, whole or not at all; how many chunks."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(target.name + ".part")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".snapshot-") as folder:
        paths = [Path(folder) / name for name in _PARTS]
        with paths[0].open("wb") as lines, paths[1].open("wb") as vectors:
            count = _export(index, lines, vectors)
        about = {
            "manifest": index.manifest.model_dump(mode="json"),
            "chunks": count,
            "sha256": {path.name: _sha256(path) for path in paths},
        }
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr("snapshot.json", json.dumps(about, indent=2))
            for path in paths:
                archive.write(path, path.name)
    unfinished.replace(target)
    return count


def restore(index: Exportable, source: Path) -> int:
    """Fill an empty index from a snapshot; how many chunks. Raises IndexMismatch if it was made
    otherwise, IndexUnavailable if the index is not empty or the snapshot is damaged."""
    about = _about(source)
    read_manifest(source).check(index.manifest, f"the snapshot {source}")
    if index.count():
        raise IndexUnavailable("a snapshot is restored into an empty index, and this one is not")
    with zipfile.ZipFile(source) as archive, tempfile.TemporaryDirectory() as folder:
        for name, wanted in about["sha256"].items():
            # Only names of our own are taken from the archive.
            path = Path(archive.extract(name, folder)) if name in _PARTS else None
            if path is None or _sha256(path) != wanted:
                raise IndexUnavailable(f"the snapshot {source} is damaged: {name} differs")
        with (Path(folder) / _PARTS[0]).open("rb") as lines:
            _fill(index, lines, _vectors(Path(folder) / _PARTS[1], index.manifest.dimension))
    return int(about["chunks"])


def read_manifest(source: Path) -> Manifest:
    """What the snapshot's index was made with. Raises IndexUnavailable."""
    try:
        return Manifest.model_validate(_about(source)["manifest"])
    except ValidationError as exc:
        raise IndexUnavailable(f"the snapshot {source} is of another version: {exc}") from exc


def _export(index: Exportable, lines: IO[bytes], vectors: IO[bytes]) -> int:
    count = 0
    for count, stored in enumerate(index.export(), 1):  # noqa: B007
        payload = layout.payload_of(stored.scope, stored.chunk)
        del payload["meta"], payload["flag"], payload["scope"]
        lines.write(json.dumps(payload, ensure_ascii=False).encode() + b"\n")
        if stored.vector is not None:
            vectors.write(stored.vector.astype("<f4").tobytes())
    return count


def _fill(index: Exportable, lines: IO[bytes], vectors: Iterator[NDArray[np.float32]]) -> None:
    while batch := [json.loads(line) for line in islice(lines, _BATCH)]:
        by_scope: dict[Scope, tuple[list[Chunk], list[NDArray[np.float32]]]] = {}
        for payload in batch:
            chunks, rows = by_scope.setdefault(layout.scope_of(payload), ([], []))
            chunk = layout.chunk_of(payload)
            chunks.append(chunk)
            if not chunk.is_parent:
                rows.append(next(vectors))
        for scope, (chunks, rows) in by_scope.items():
            stacked = np.stack(rows) if rows else np.zeros((0, index.manifest.dimension))
            index.upsert(scope, chunks, stacked.astype(np.float32))


def _vectors(path: Path, dimension: int) -> Iterator[NDArray[np.float32]]:
    if path.stat().st_size:
        yield from np.memmap(path, "<f4", "r").reshape(-1, dimension)


def _about(source: Path) -> Any:
    try:
        with zipfile.ZipFile(source) as archive:
            return json.loads(archive.read("snapshot.json"))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as exc:
        raise IndexUnavailable(f"{source} is not a snapshot of an index: {exc}") from exc


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
