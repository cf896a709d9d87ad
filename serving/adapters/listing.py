"""Adapter versions as operators see them: one row a version and model, refused ones included."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.adapters.entries import Entry, Folder
from serving.adapters.names import MAX_LENGTH


@dataclass(frozen=True)
class AdapterVersion:
    """One version, as `corral adapters list` shows it."""

    name: str
    version: str
    """Of a directory named in the configuration, a hash of its bytes."""
    base: str
    """Public name of the model it belongs to; empty when it is refused before that is known."""
    path: Path
    rank: int
    """The largest of any module; 0 when refused."""
    target_modules: tuple[str, ...]
    size_bytes: int
    """Of the weights file; 0 when refused."""
    created: int
    """Modification time of the directory, Unix seconds."""
    live: bool
    disabled: bool
    error: str | None
    """Why it is refused."""
    tenant: str | None = None
    """Whose it is alone; None for everybody's."""
    challenger: bool = False
    names: tuple[str, ...] = ()
    """Its `ft:` names."""

    @property
    def engine_name(self) -> str:
        """The name an engine knows it by: `<base>:<name>@<version>`."""
        return f"{self.base}:{self.name}@{self.version}"


@dataclass(frozen=True)
class View:
    """The versions of one name as one model sees them."""

    base: str
    configured: Entry | None
    entries: Sequence[Entry]
    """Those of the adapters folder, in ascending order."""
    live: Entry | None


def rows(name: str, path: Path, folder: Folder, views: Sequence[View]) -> Iterator[AdapterVersion]:
    """Rows of one adapter name; a version that fits two models has one for each."""
    for misnamed in folder.misnamed:
        yield unnamed_row(name, path / misnamed, misnamed)
    for view in views:
        if view.configured is not None:
            yield _row(name, view.configured, view, folder)
    for index, version in enumerate(reversed(folder.versions)):
        if not views:
            yield _bare_row(
                name, path / version, version, "no model takes adapters; set engine.lora.max_loras"
            )
            continue
        owned = [view for view in views if view.entries[index].owner]
        for view in owned or views[:1]:
            yield _row(name, view.entries[index], view, folder, base=view.base if owned else "")


def unnamed_row(name: str, path: Path, directory: str) -> AdapterVersion:
    """A directory whose name nobody could ask for."""
    error = (
        f"the directory {directory!a} cannot be named in a request: use letters, digits, '.', "
        f"'_' and '-', beginning with a letter or digit, at most {MAX_LENGTH} of them"
    )
    return _bare_row(name, path, ascii(directory)[1:-1], error)


def _bare_row(name: str, path: Path, version: str, error: str) -> AdapterVersion:
    return AdapterVersion(
        name, version, "", path, 0, (), 0, _created(path), live=False, disabled=False, error=error
    )


def _row(
    name: str, entry: Entry, view: View, folder: Folder, base: str | None = None
) -> AdapterVersion:
    checked = entry.checked
    return AdapterVersion(
        name=name,
        version=entry.version,
        base=view.base if base is None else base,
        path=entry.ref.path,
        rank=checked.rank if checked else 0,
        target_modules=checked.target_modules if checked else (),
        size_bytes=checked.size_bytes if checked else 0,
        created=_created(entry.ref.path),
        live=view.live is not None and entry.ref == view.live.ref,
        disabled=folder.state.is_disabled(entry.version),
        error=folder.problem or entry.error,
        tenant=folder.state.tenant,
        challenger=folder.state.challenger == entry.version,
        names=tuple(n for n, held in folder.state.names.items() if held == entry.version),
    )


def _created(path: Path) -> int:
    try:
        return int(os.stat(path).st_mtime)
    except OSError:
        return 0
