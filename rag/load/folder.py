"""Files of this machine: one file, a folder with everything below it, or a glob."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from rag.errors import Refused, SourceUnreadable
from rag.load.config import LoadConfig
from rag.load.detect import EXTENSIONS
from rag.load.source import Entry
from rag.protocols import RawFile

__all__ = ["FolderSource"]


class FolderSource:
    """Implements `Source`. URIs are absolute paths."""

    def __init__(self, path: str, config: LoadConfig) -> None:
        self._config = config
        self._path = os.path.abspath(os.path.expanduser(path))
        self._pattern = None if os.path.lexists(self._path) else self._path

    @property
    def uri(self) -> str:
        return self._path

    def entries(self) -> Iterator[Entry]:
        """See `Source.entries`. From a folder, only files whose extension names a format."""
        if self._pattern is not None:
            yield from self._matches(self._pattern)
        elif os.path.isdir(self._path):
            yield from self._below(Path(self._path))
        else:
            yield self._entry(Path(self._path))

    def _matches(self, pattern: str) -> Iterator[Entry]:
        if not glob.has_magic(pattern):
            raise SourceUnreadable(f"there is no {pattern}: name a file, a folder or a glob")
        hidden = self._config.hidden
        for name in sorted(glob.iglob(pattern, recursive=True, include_hidden=hidden)):
            if os.path.isfile(name) and (self._config.follow_symlinks or not os.path.islink(name)):
                yield self._entry(Path(name))

    def _below(self, root: Path) -> Iterator[Entry]:
        real_root = os.path.realpath(root)
        seen = {real_root}
        folders = [root]
        while folders:
            folder = folders.pop()
            deeper = []
            for item in self._listed(folder):
                if item.name.startswith(".") and not self._config.hidden:
                    continue
                if item.is_symlink() and not self._may_follow(item.path, real_root):
                    continue
                if item.is_dir():
                    real = os.path.realpath(item.path)
                    if real not in seen:
                        seen.add(real)
                        deeper.append(Path(item.path))
                elif item.is_file() and _readable(item.name):
                    yield self._entry(Path(item.path))
            folders += reversed(deeper)

    def _listed(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as found:
                return sorted(found, key=lambda item: item.name)
        except OSError as exc:
            raise SourceUnreadable(f"cannot list {folder}: {exc.strerror}") from exc

    def _may_follow(self, path: str, root: str) -> bool:
        real = os.path.realpath(path)
        inside = os.path.commonpath((real, root)) == root
        return self._config.follow_symlinks and inside

    def _entry(self, path: Path) -> Entry:
        uri = str(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        most = self._config.max_file_mib << 20
        try:
            size = path.stat().st_size
        except OSError:
            size = 0
        return Entry(uri, lambda: RawFile(uri, read_file(path, most)), size)


def read_file(path: Path, most: int) -> bytes:
    """The bytes of a regular file of at most `most`. Raises SourceUnreadable and Refused."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(file, "rb") as stream:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode):
                raise Refused(f"{path} is no regular file")
            data = stream.read(most + 1) if found.st_size <= most else None
    except OSError as exc:
        if isinstance(exc, Refused):
            raise
        raise SourceUnreadable(f"cannot read {path}: {exc.strerror or exc}") from exc
    if data is None or len(data) > most:
        raise Refused(f"{path} has more than {most >> 20} MiB: raise load.max_file_mib")
    return data


def _readable(name: str) -> bool:
    return name.lower().rpartition(".")[2] in EXTENSIONS
