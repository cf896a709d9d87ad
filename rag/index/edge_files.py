"""The embedded index's folder: who has it, what it was made with, which shard is live."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from rag.errors import IndexUnavailable
from rag.index.manifest import Manifest

__all__ = ["EdgeFiles"]


class EdgeFiles:
    """One process holds it between `claim` and `release`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.indexed = 0
        """Points that the live shard's graph was built over."""
        self._lock: IO[str] | None = None
        self._live = "shard-000001"

    @property
    def held(self) -> bool:
        return self._lock is not None

    @property
    def shard(self) -> Path:
        """The live one; it need not exist yet."""
        return self.path / self._live

    def claim(self, wanted: Manifest) -> Manifest:
        """Take the folder, making it if need be; its manifest. Raises IndexUnavailable if another
        process has it, IndexMismatch if it was made otherwise."""
        self._take_lock()
        manifest = self._manifest()
        if manifest is None:
            manifest = wanted
            _write(self.path / "manifest.json", wanted.model_dump_json(indent=2))
        else:
            manifest.check(wanted, f"the index at {self.path}")
        self._read_current()
        self._remove_stale()
        return manifest

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def next_shard(self) -> Path:
        """A name for a copy, after the live one's."""
        number = int(self._live.removeprefix("shard-")) + 1
        return self.path / f"shard-{number:06}"

    def copy_shard(self, target: Path) -> None:
        """Copy the live shard, which nobody writes to meanwhile."""
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.shard, target)

    def make_live(self, target: Path, indexed: int) -> None:
        """Make `target` the live shard, and remove the one before."""
        self._live, self.indexed = target.name, indexed
        _write(self.path / "current.json", json.dumps({"shard": target.name, "indexed": indexed}))
        self._remove_stale()

    def _take_lock(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / "lock").open("a+", encoding="utf-8")
        except OSError as exc:
            raise IndexUnavailable(f"cannot open the index at {self.path}: {exc}") from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            lock.seek(0)
            holder = lock.read().strip() or "?"
            lock.close()
            raise IndexUnavailable(
                f"the index at {self.path} is open in process {holder}: the embedded engine serves "
                "one process at a time. Stop that one, or set `index.url` to a Qdrant server"
            ) from exc
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def _manifest(self) -> Manifest | None:
        path = self.path / "manifest.json"
        if not path.exists():
            return None
        try:
            return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValidationError) as exc:
            raise IndexUnavailable(
                f"{path} cannot be read as an index's manifest: {exc}. Restore a snapshot"
            ) from exc

    def _read_current(self) -> None:
        path = self.path / "current.json"
        if path.exists():
            current = json.loads(path.read_text(encoding="utf-8"))
            self._live, self.indexed = current["shard"], current["indexed"]

    def _remove_stale(self) -> None:
        for folder in self.path.glob("shard-*"):
            if folder.name != self._live:
                shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    new = path.with_name(path.name + ".new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
