"""Champion and challenger: named, taken back, deleted; at once for all replicas, with history.

The alias is a field of a file that is renamed into place and that every gateway looks at with
each request (`adapters/state.py`). Calls block, and may come from any thread.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable

from serving.adapters.state import State
from serving.errors import AdapterNotFound
from serving.finetuning.shop import Shop
from serving.store.audit import Actor
from serving.store.errors import Conflict, NotFound
from serving.store.registry import Action, Alias, Version


class Aliases:
    """Decides over the adapters of one stack."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    def promote(self, adapter: str, version: str, alias: Alias, actor: Actor) -> State:
        """Have an alias mean this version from now on. It is enabled if it was not.

        Raises AdapterNotFound for a version that is not there.
        """
        known = self._known(adapter, version)

        def change(state: State) -> State:
            if known is not None:
                state = state.named(known.name, version)
            if state.is_disabled(version):
                state = state.enable(version, self._versions(adapter))
            if alias == "champion":
                return state.with_live(version)
            return state.with_challenger(version)

        self._change(adapter, alias, version, "promote", actor, change)
        if known is not None and known.job_id is not None:
            self._shop.jobs.set_model(known.job_id, known.name)
        return self.state(adapter)

    def rollback(self, adapter: str, actor: Actor) -> State:
        """Have the champion be what it was before. Raises Conflict where it was nothing."""
        target = self.before(adapter)
        self._change(adapter, "champion", target, "rollback", actor, lambda s: s.with_live(target))
        return self.state(adapter)

    def before(self, adapter: str) -> str:
        """The version to roll back to. Raises AdapterNotFound, Conflict."""
        live = self.state(adapter).live
        for change in self._shop.registry.history(adapter, limit=1000):
            is_its = change.alias == "champion" and change.version == live
            if is_its and change.action in ("register", "promote"):
                if change.previous in self._versions(adapter):
                    assert change.previous is not None
                    return change.previous
                break
        raise Conflict(f"{adapter} has no champion before {live or 'this'} to go back to")

    def delete(self, adapter: str, version: str, name: str, actor: Actor) -> None:
        """Remove a version for good; its number and its name are not used again."""
        state = self.state(adapter)
        folder = self._shop.settings.home.adapters / adapter
        gone = folder / f".{version}.{secrets.token_hex(4)}.deleted"

        def remove() -> None:
            self._shop.settings.adapters().change(adapter, lambda s: s.without(version))
            os.rename(folder / version, gone)

        for alias in ("champion", "challenger"):
            if state.alias(alias) == version:
                self._change(
                    adapter, "champion" if alias == "champion" else "challenger", None, "delete",
                    actor, lambda s: s,
                )  # fmt: skip
        try:
            self._shop.registry.delete(adapter, version, actor, remove)
        except NotFound:  # a checkpoint's
            remove()
            self._shop.events.forget_checkpoint(name)
        shutil.rmtree(gone, ignore_errors=True)

    def state(self, adapter: str) -> State:
        """What is decided now."""
        return self._shop.settings.adapters().state(adapter)

    def _known(self, adapter: str, version: str) -> Version | None:
        """The registry's row; None for an adapter that an operator has put there."""
        if version not in self._versions(adapter):
            raise AdapterNotFound(
                f"no version {version!r} of adapter {adapter!r}; `corral registry list` shows all"
            )
        try:
            return self._shop.registry.get(adapter, version)
        except NotFound:
            return None

    def _versions(self, adapter: str) -> list[str]:
        found = self._shop.settings.adapters().list()
        return [each.version for each in found if each.name == adapter and each.base]

    def _change(
        self, adapter: str, alias: Alias, version: str | None, action: Action, actor: Actor,
        change: Callable[[State], State],
    ) -> None:  # fmt: skip
        adapters = self._shop.settings.adapters()
        previous = adapters.state(adapter).alias(alias)
        self._shop.registry.change(
            adapter, alias, version, previous, action, actor,
            apply=lambda: adapters.change(adapter, change),
        )  # fmt: skip
