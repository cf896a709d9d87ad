"""Remembers the outcome of every check until the files it read change.

Everything here is keyed by what `stat` says (modification time, size, inode), so
a look that finds nothing new costs one `stat` a file and no read.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serving.adapters.base_model import BaseModel
from serving.adapters.checks import WEIGHTS, CheckedAdapter, Limits, check, check_directory
from serving.adapters.files import open_regular, subdirectories
from serving.adapters.names import is_part, version_key
from serving.adapters.peft_config import CONFIG, read_base_name
from serving.adapters.state import STATE, State, read_state
from serving.engines.base import AdapterRef
from serving.errors import AdapterRefused

# A file system's clock ticks every few milliseconds: two changes within one tick leave
# the same time, so what changed less than this ago is looked at again.
_SETTLED_NS = 100_000_000

Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True)
class Served:
    """A model that takes adapters."""

    model: BaseModel
    limits: Limits
    configured: Mapping[str, Path] = field(default_factory=dict)
    """Adapters named in the configuration: name to PEFT directory."""


@dataclass
class Entry:
    """One version as one base model sees it."""

    ref: AdapterRef
    version: str
    stamp: Stamp
    """Of the directory, its configuration and its weights."""
    settled: bool
    checked: CheckedAdapter | None
    error: str | None
    owner: bool | None
    """Whether it names this base model; None when that cannot be read."""
    handed_out: bool = False
    """An engine may know its bytes by its name."""
    changed: bool = False
    """Its files are no longer those that were handed out."""


@dataclass(frozen=True)
class Folder:
    """`<adapters>/<name>` at one moment."""

    watched: tuple[str, ...] = ()
    stamp: Stamp = ()
    settled: bool = False
    state: State = field(default_factory=State)
    problem: str | None = None
    """Why the state file cannot be believed; nothing of the adapter is served then."""
    versions: tuple[str, ...] = ()
    """Highest first."""
    misnamed: tuple[str, ...] = ()
    """Directories whose names cannot be versions."""

    @property
    def unchanged(self) -> bool:
        """Whether nobody has added, removed, or decided anything since."""
        return self.settled and _stamp(self.watched) == self.stamp


def read_folder(path: Path) -> Folder:
    """List the versions and read the state. A folder that is missing has none."""
    watched = (str(path), str(path / STATE))
    stamp, now = _stamp(watched), time.time_ns()
    names: list[str] = []
    try:
        names = subdirectories(path)
        state, problem = read_state(path), None
    except (FileNotFoundError, NotADirectoryError):
        return Folder()
    except OSError as exc:
        state, problem = State(), f"{path} cannot be read: {exc.strerror}"
    except AdapterRefused as exc:
        state, problem = State(), str(exc)
    return Folder(
        watched,
        stamp,
        _is_settled(stamp, now),
        state,
        problem,
        tuple(sorted(filter(is_part, names), key=version_key, reverse=True)),
        tuple(sorted(name for name in names if not is_part(name))),
    )


class Inspector:
    """Checks versions and remembers the outcome. Not for two threads at once."""

    def __init__(self, adapters: Path) -> None:
        self._adapters = adapters
        self._entries: dict[tuple[str, str, str | None], Entry] = {}
        self._watched: dict[Path, tuple[str, ...]] = {}

    def version(self, served: Served, name: str, version: str) -> Entry:
        """The version in `<adapters>/<name>/<version>`."""
        key = (served.model.name, name, version)
        old = self._entries.get(key)
        path = old.ref.path if old else self._adapters / name / version
        stamp, now = self._stamp(path), time.time_ns()
        if old and old.stamp == stamp and (old.settled or old.handed_out):
            return old
        entry = _inspect(served, name, version, path, self._adapters)
        if old and old.handed_out and (old.changed or old.stamp[1:] != stamp[1:]):
            entry.changed = True
            entry.checked, entry.error = (
                None,
                (
                    "its files changed after it was served, and a version never changes: publish "
                    "them under a new version, then restart to clear this one"
                ),
            )
        entry.handed_out = old is not None and old.handed_out
        entry.stamp, entry.settled = stamp, _is_settled(stamp, now)
        self._entries[key] = entry
        return entry

    def configured(self, served: Served, name: str, directory: Path) -> Entry:
        """The directory that the configuration names; its version is the hash of its bytes."""
        key = (served.model.name, name, None)
        old = self._entries.get(key)
        stamp, now = self._stamp(directory), time.time_ns()
        if old and old.settled and old.stamp == stamp:
            return old
        entry = _inspect(served, name, None, directory, None)
        entry.stamp, entry.settled = stamp, _is_settled(stamp, now)
        self._entries[key] = entry
        return entry

    def _stamp(self, directory: Path) -> Stamp:
        watched = self._watched.get(directory)
        if watched is None:
            watched = (str(directory), str(directory / CONFIG), str(directory / WEIGHTS))
            self._watched[directory] = watched
        return _stamp(watched)


def _inspect(
    served: Served, name: str, version: str | None, path: Path, inside: Path | None
) -> Entry:
    """Check one directory; `version` None takes the hash of its bytes for one."""
    checked: CheckedAdapter | None = None
    owner: bool | None = None
    error: str | None = None
    try:
        check_directory(path, inside)
        owner = served.model.accepts(read_base_name(path, served.limits.max_config_bytes).name)
        checked = check(path, served.model, served.limits, inside=inside)
        version = version or content_version(path)
    except AdapterRefused as exc:
        checked, error = None, str(exc)
    version = version or "refused"
    ref = AdapterRef(f"{served.model.name}:{name}@{version}", path)
    return Entry(ref, version, (), False, checked, error, owner)


def content_version(path: Path) -> str:
    """Twelve hexadecimal digits of the SHA-256 of the adapter's two files.

    Other bytes make another version, so that an engine never meets new weights
    under a name it knows. Raises AdapterRefused.
    """
    digest = hashlib.sha256()
    for file_name in (CONFIG, WEIGHTS):
        with open_regular(path / file_name, "it was there a moment ago; try again") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]


def _stamp(paths: tuple[str, ...]) -> Stamp:
    found: list[tuple[int, int, int] | None] = []
    for path in paths:
        try:
            info = os.stat(path)
        except OSError:
            found.append(None)
        else:
            found.append((info.st_mtime_ns, info.st_size, info.st_ino))
    return tuple(found)


def _is_settled(stamp: Stamp, now_ns: int) -> bool:
    return all(part is None or now_ns - part[0] > _SETTLED_NS for part in stamp)
