"""What was decided about one adapter: which version is live, what is disabled, whose it is.

Kept in `<adapters>/<name>/state.json`. Writers hold a lock on `.lock` beside it
and rename a finished file into place, so that readers need no lock, no update is
lost between two processes, and a kill at any point leaves the old state or the
new one. The rename also renews the folder's modification time, which readers watch.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from serving.adapters.files import read_json
from serving.errors import AdapterRefused

STATE = "state.json"
_MAX_BYTES = 1 << 20
_MEND = "remove it to start anew: the newest version is then live and none is disabled"


CHAMPION, CHALLENGER = "champion", "challenger"


@dataclass(frozen=True)
class State:
    """Decisions about one adapter name."""

    live: str | None = None
    """The version behind the bare name, the champion; None for the newest that passes checks."""
    off: bool = False
    """The whole adapter is disabled, versions yet to come included."""
    disabled: frozenset[str] = frozenset()
    tenant: str | None = None
    """Whose it is, and nobody else's; None for everybody's. Of a tenant's adapter only what was
    promoted is live."""
    challenger: str | None = None
    """The version that may follow the live one."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Versions by their `ft:` names."""

    def is_disabled(self, version: str) -> bool:
        """Whether requests for this version are turned away."""
        return self.off or version in self.disabled

    def disable(self, version: str | None) -> State:
        """Turn off one version, or the whole adapter."""
        if version is None:
            return replace(self, off=True)
        return replace(self, disabled=self.disabled | {version})

    def enable(self, version: str | None, existing: Iterable[str]) -> State:
        """Turn on one version, or all. Of an adapter that was off, only that one comes back."""
        if version is None:
            return replace(self, off=False, disabled=frozenset())
        disabled = self.disabled | set(existing) if self.off else self.disabled
        return replace(self, off=False, disabled=disabled - {version})

    def with_live(self, version: str | None) -> State:
        """Pin the bare name to a version. A challenger that becomes live is one no more."""
        challenger = None if self.challenger == version else self.challenger
        return replace(self, live=version, challenger=challenger)

    def with_challenger(self, version: str | None) -> State:
        """Name the version that may follow."""
        return replace(self, challenger=version)

    def owned(self, tenant: str) -> State:
        """Belong to a tenant alone."""
        return replace(self, tenant=tenant)

    def named(self, name: str, version: str) -> State:
        """Have a version answer to an `ft:` name."""
        return replace(self, names={**self.names, name: version})

    def without(self, version: str) -> State:
        """As after a version was deleted."""
        return replace(
            self,
            live=None if self.live == version else self.live,
            challenger=None if self.challenger == version else self.challenger,
            disabled=self.disabled - {version},
            names={name: held for name, held in self.names.items() if held != version},
        )

    def alias(self, name: str) -> str | None:
        """The version that `champion` or `challenger` means."""
        return self.live if name == CHAMPION else self.challenger


def read_state(folder: Path) -> State:
    """State of the adapter in `folder`. Raises AdapterRefused when the file is damaged."""
    path = folder / STATE
    if not os.path.lexists(path):
        return State()
    data = read_json(path, _MAX_BYTES, _MEND)
    live, off, disabled = data.get("live"), data.get("off", False), data.get("disabled", [])
    if not (live is None or isinstance(live, str)) or type(off) is not bool:
        raise AdapterRefused(f"{path}: live must be a version and off true or false; {_MEND}")
    if not isinstance(disabled, list) or not all(isinstance(name, str) for name in disabled):
        raise AdapterRefused(f"{path}: disabled must be a list of versions; {_MEND}")
    tenant, challenger, names = data.get("tenant"), data.get("challenger"), data.get("names", {})
    if not all(value is None or isinstance(value, str) for value in (tenant, challenger)):
        raise AdapterRefused(f"{path}: tenant and challenger must be text or null; {_MEND}")
    if not isinstance(names, dict) or not all(isinstance(held, str) for held in names.values()):
        raise AdapterRefused(f"{path}: names must be an object of versions; {_MEND}")
    return State(live, off, frozenset(disabled), tenant, challenger, names)


def update_state(folder: Path, change: Callable[[State], State]) -> State:
    """Apply `change` to the state on disk, alone. Raises AdapterRefused, OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = change(read_state(folder))
        _replace(folder, state)
        return state
    finally:
        os.close(lock)


def _replace(folder: Path, state: State) -> None:
    fields: dict[str, object] = {"live": state.live, "off": state.off}
    fields["disabled"] = sorted(state.disabled)
    if state.tenant is not None:
        fields |= {"tenant": state.tenant, "challenger": state.challenger}
        fields["names"] = dict(state.names)
    elif state.challenger is not None:
        fields["challenger"] = state.challenger
    temporary = folder / ".state.json.new"  # one name: only the holder of the lock writes it
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(json.dumps(fields, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / STATE)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
