"""Finds the adapter version behind a name: `$CORRAL_HOME/adapters` and the configuration.

`<adapters>/<name>/<version>/` is an immutable PEFT directory; the bare name means
the version pinned in `state.json`, else the directory that the configuration
names, else the highest version that passes its checks and is not disabled. Of an
adapter that belongs to a tenant only what was pinned is live. Other processes may add
versions and change states at any time: every call sees it.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from serving.adapters.base_model import BaseModel
from serving.adapters.checks import Limits
from serving.adapters.entries import Entry, Folder, Inspector, Served, read_folder
from serving.adapters.files import is_inside, subdirectories
from serving.adapters.listing import AdapterVersion, View, rows, unnamed_row
from serving.adapters.names import AdapterName, FineTunedName, is_part
from serving.adapters.state import CHALLENGER, CHAMPION, State, update_state
from serving.config import FakeConfig, LoraConfig, ModelConfig, VllmConfig
from serving.engines.base import AdapterRef
from serving.errors import AdapterNotFound, AdapterRefused, CorralError
from serving.home import Home


class AdapterStore:
    """Every adapter of a running stack. One per process; not for two threads at once."""

    def __init__(
        self,
        home: Home,
        models: Sequence[ModelConfig],
        *,
        weights: Mapping[str, str | Path] | None = None,
        aliases: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        """`weights` and `aliases` by model name: prepared directory, and other names (a Hub id)
        under which adapters may know the model."""
        self._root = home.adapters
        self._inspector = Inspector(home.adapters)
        self._folders: dict[str, Folder] = {}
        self._served = {
            model.name: _serve(
                model, lora, (weights or {}).get(model.name), (aliases or {}).get(model.name, ())
            )
            for model in models
            if (lora := _lora(model)).enabled
        }

    def resolve(self, base: str, name: str, version: str | None = None) -> AdapterRef:
        """The version that answers requests for `<base>:<name>[@<version>]`.

        Raises AdapterNotFound (unknown or disabled) and AdapterRefused. Costs a few
        `stat` calls as long as nothing has changed on disk.
        """
        served = self._served.get(base)
        if served is None:
            takes = ", ".join(self._served) or "none; set engine.lora.max_loras above 0"
            raise AdapterNotFound(f"model {base[:80]!r} takes no adapters; models that do: {takes}")
        folder = self._folder(name)
        if not folder.watched and name not in served.configured:
            raise self.not_found(base, name)
        if folder.problem is not None:
            raise AdapterRefused(f"adapter {base}:{name} is not served: {folder.problem}")
        if version in (CHAMPION, CHALLENGER) and version not in folder.versions:
            version = self._alias(served, name, version, folder)
        if version is None:
            entry = self._live(served, name, folder)
        else:
            entry = self._exact(served, name, version, folder)
        entry.handed_out = True
        return entry.ref

    def not_found(self, base: str, name: str) -> AdapterNotFound:
        """The error for a name that is not there; those of tenants are not told."""
        return AdapterNotFound(_near(AdapterName(base, name), self._names(self._served[base])))

    def owner(self, name: str) -> str | None:
        """The tenant whose adapter it is; None for everybody's, and for what is not there."""
        return self._folder(name).state.tenant

    def state(self, name: str) -> State:
        """What was decided about an adapter. Raises AdapterRefused when that is damaged."""
        folder = self._folder(name)
        if folder.problem is not None:
            raise AdapterRefused(f"adapter {name}: {folder.problem}")
        return folder.state

    def find(self, name: FineTunedName) -> tuple[str, str] | None:
        """Adapter and version that answer to an `ft:` name."""
        for adapter in name.adapters:
            state = self._folder(adapter).state
            version = state.names.get(str(name))
            if version is not None and state.tenant == name.tenant:
                return adapter, version
        return None

    def change(self, name: str, change: Callable[[State], State]) -> None:
        """Decide something about an adapter, at once for all gateways. Raises AdapterRefused."""
        self._update(name, change)

    def list(self) -> list[AdapterVersion]:
        """Every version on disk and in the configuration, the refused ones with the reason.

        By name, versions in ascending order. A version that fits two models (served
        twice from one source) is listed for each.
        """
        names = {name for served in self._served.values() for name in served.configured}
        found: list[AdapterVersion] = []
        for name in sorted(names | set(self._directories())):
            path = self._root / name
            if is_part(name):
                folder = self._folder(name)
                found += rows(name, path, folder, self._views(name, folder))
            else:
                found.append(unnamed_row(ascii(name)[1:-1], path, name))
        return found

    def is_disabled(self, name: str, version: str) -> bool:
        """Whether requests for this version are turned away."""
        return self._folder(name).state.is_disabled(version)

    def set_live(self, name: str, version: str) -> None:
        """Pin `<base>:<name>` to a version. Raises AdapterNotFound, AdapterRefused."""
        found = self._find_all(name, version)
        state = self._folder(name).state
        _usable(next((entry for entry in found if entry.error is None), found[0]), state)
        self._update(name, lambda state: state.with_live(version))

    def disable(self, name: str, version: str | None = None) -> None:
        """Turn requests away: for one version, or for all, those yet to come included."""
        self._check_known(name, version)
        self._update(name, lambda state: state.disable(version))

    def enable(self, name: str, version: str | None = None) -> None:
        """Serve again. Of an adapter disabled as a whole, only the given version comes back."""
        self._check_known(name, version)
        existing = self._versions(name)
        self._update(name, lambda state: state.enable(version, existing))

    def _folder(self, name: str) -> Folder:
        folder = self._folders.get(name)
        if folder is not None and folder.unchanged:
            return folder
        folder = read_folder(self._root / name) if is_part(name) else Folder()
        if folder.watched:
            self._folders[name] = folder
        else:
            self._folders.pop(name, None)
        return folder

    def _candidates(self, served: Served, name: str, folder: Folder) -> Iterator[Entry]:
        """All versions, in the order in which the bare name prefers them."""
        configured = self._configured(served, name)
        if configured is not None:
            yield configured
        for version in folder.versions:
            yield self._inspector.version(served, name, version)

    def _live(self, served: Served, name: str, folder: Folder) -> Entry:
        pinned = folder.state.live
        if pinned is not None:
            entry = self._find(served, name, pinned, folder)
            if entry is not None and entry.owner is not False:
                return _usable(entry, folder.state)
            if name not in served.configured and pinned not in self._versions(name):
                raise AdapterNotFound(
                    f"adapter {served.model.name}:{name} has version {pinned} live, which is gone "
                    f"from disk; `corral adapters load {name}` with another version"
                )
        if folder.state.tenant is not None:
            raise AdapterNotFound(
                f"adapter {served.model.name}:{name} has no live version; "
                f"`corral registry promote {name}@VERSION` makes one live"
            )
        failed: Entry | None = None
        for entry in self._candidates(served, name, folder):
            if entry.error is None and not folder.state.is_disabled(entry.version):
                return entry
            if failed is None or (failed.owner is False and entry.owner is not False):
                failed = entry
        if failed is None:
            raise AdapterNotFound(f"adapter {served.model.name}:{name} has no version on disk")
        return _usable(failed, folder.state)

    def _alias(self, served: Served, name: str, alias: str, folder: Folder) -> str | None:
        """The version an alias means; None leaves it to `_live`."""
        found = folder.state.alias(alias)
        if found is None and alias == CHALLENGER:
            raise AdapterNotFound(
                f"adapter {served.model.name}:{name} has no challenger; "
                f"`corral registry promote {name}@VERSION --alias challenger` names one"
            )
        return found

    def _exact(self, served: Served, name: str, version: str, folder: Folder) -> Entry:
        entry = self._find(served, name, version, folder)
        if entry is None:
            known = [found.version for found in self._candidates(served, name, folder)]
            full = [f"{served.model.name}:{name}@{v}" for v in known]
            raise AdapterNotFound(_near(AdapterName(served.model.name, name, version), full))
        return _usable(entry, folder.state)

    def _find(self, served: Served, name: str, version: str, folder: Folder) -> Entry | None:
        if version in folder.versions:
            return self._inspector.version(served, name, version)
        entry = self._configured(served, name)
        return entry if entry is not None and entry.version == version else None

    def _configured(self, served: Served, name: str) -> Entry | None:
        directory = served.configured.get(name)
        return None if directory is None else self._inspector.configured(served, name, directory)

    def _find_all(self, name: str, version: str) -> Sequence[Entry]:
        """The version as each model sees it, at least one. Raises AdapterNotFound."""
        self._check_known(name, version)
        folder = self._folder(name)
        if folder.problem is not None:
            raise AdapterRefused(folder.problem)
        found = [self._find(served, name, version, folder) for served in self._served.values()]
        entries = [entry for entry in found if entry is not None]
        if not entries:
            raise AdapterNotFound("no served model takes adapters; set engine.lora.max_loras")
        return entries

    def _versions(self, name: str) -> Sequence[str]:
        configured = [self._configured(served, name) for served in self._served.values()]
        return [*self._folder(name).versions, *(entry.version for entry in configured if entry)]

    def _check_known(self, name: str, version: str | None) -> None:
        known = self._versions(name)
        if not known:
            near = difflib.get_close_matches(name, self._directories(), n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise AdapterNotFound(f"no adapter {name[:80]!r} in {self._root}{hint}")
        if version is not None and version not in known:
            raise AdapterNotFound(
                f"adapter {name!r} has no version {version[:80]!r}; it has {', '.join(known[:8])}"
            )

    def _update(self, name: str, change: Callable[[State], State]) -> None:
        folder = self._root / name
        if not is_inside(folder, self._root):
            raise AdapterRefused(f"{folder} leads out of {self._root}; move the adapter there")
        try:
            update_state(folder, change)
        except OSError as exc:
            raise CorralError(f"cannot write in {folder}: {exc.strerror}; mend its rights") from exc
        self._folders.pop(name, None)

    def _directories(self) -> Sequence[str]:
        try:
            return subdirectories(self._root)
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise CorralError(f"cannot read {self._root}: {exc.strerror}; mend its rights") from exc

    def _names(self, served: Served) -> Sequence[str]:
        found = filter(is_part, self._directories())
        names = {*served.configured, *(name for name in found if self.owner(name) is None)}
        return [f"{served.model.name}:{name}" for name in sorted(names)]

    def _views(self, name: str, folder: Folder) -> Sequence[View]:
        return [
            View(
                base,
                self._configured(served, name),
                [self._inspector.version(served, name, v) for v in reversed(folder.versions)],
                self._live_or_none(served, name, folder),
            )
            for base, served in self._served.items()
        ]

    def _live_or_none(self, served: Served, name: str, folder: Folder) -> Entry | None:
        try:
            return None if folder.problem else self._live(served, name, folder)
        except CorralError:
            return None


def _lora(model: ModelConfig) -> LoraConfig:
    engine = model.engine
    return engine.lora if isinstance(engine, VllmConfig | FakeConfig) else LoraConfig()


def _serve(
    model: ModelConfig, lora: LoraConfig, weights: str | Path | None, aliases: Iterable[str]
) -> Served:
    if weights is None and model.engine.kind != "fake" and os.path.isdir(model.weights):
        weights = model.weights
    base = BaseModel.from_weights(model.name, weights, {model.weights, *aliases})
    configured = {name: Path(path).expanduser().absolute() for name, path in model.adapters.items()}
    return Served(base, Limits(max_rank=lora.max_rank), configured)


def _usable(entry: Entry, state: State) -> Entry:
    """The entry itself. Raises AdapterRefused, and AdapterNotFound for a disabled one."""
    if entry.error is not None:
        raise AdapterRefused(f"adapter {entry.ref.engine_name} is refused: {entry.error}")
    if state.is_disabled(entry.version):
        raise AdapterNotFound(
            f"adapter {entry.ref.engine_name} is disabled; `corral adapters load` enables it"
        )
    return entry


def _near(wanted: AdapterName, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(wanted), known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known[:8]) or '-'}"
    return f"no adapter {wanted}; {hint}"
