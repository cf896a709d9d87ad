"""What is known of registered adapter versions, and the history of their aliases.

Which version an alias means is said on disk (`adapters/state.py`), where every gateway reads
it with each request; here is why, since when, and who decided it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import insert, select, update

from serving.store import audit
from serving.store.audit import Actor
from serving.store.database import Store
from serving.store.errors import NotFound
from serving.store.finetuning_tables import registry_history as history
from serving.store.finetuning_tables import registry_versions as versions

Alias = Literal["champion", "challenger"]
Action = Literal["register", "promote", "rollback", "delete"]


@dataclass(frozen=True)
class Version:
    """One immutable version of an adapter."""

    adapter: str
    version: str
    tenant_id: str
    base: str
    name: str
    """Its `ft:` name."""
    job_id: str | None = None
    created_us: int = 0
    deleted_us: int | None = None
    lineage: Mapping[str, Any] = field(default_factory=dict)
    """Base revision, data hash, settings: where it comes from."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    gate: Mapping[str, Any] | None = None
    """`passed` and `reasons`; None where nothing was evaluated."""


@dataclass(frozen=True)
class Change:
    """One line of the history: an alias came to mean another version."""

    number: int
    at_us: int
    adapter: str
    alias: str
    version: str | None
    previous: str | None
    action: str
    actor: str


class Registry:
    """Versions and history of all adapters."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, version: Version) -> None:
        """Register a version; one that is known stays as it is."""
        known = select(versions.c.version).where(
            versions.c.adapter == version.adapter, versions.c.version == version.version
        )
        values = {**vars(version), "created_us": version.created_us or self._store.now_us()}
        for name in ("lineage", "metrics"):
            values[name] = dict(values[name])
        values["gate"] = None if version.gate is None else dict(version.gate)
        with self._store.write() as connection:
            if connection.execute(known).first() is None:
                connection.execute(insert(versions).values(values))

    def all(self, adapter: str | None = None, *, tenant_id: str | None = None) -> list[Version]:
        """Versions that were not deleted, by adapter and age."""
        query = select(versions).where(versions.c.deleted_us.is_(None))
        if adapter is not None:
            query = query.where(versions.c.adapter == adapter)
        if tenant_id is not None:
            query = query.where(versions.c.tenant_id == tenant_id)
        order = (versions.c.adapter, versions.c.created_us, versions.c.version)
        with self._store.read() as connection:
            return [Version(**row._mapping) for row in connection.execute(query.order_by(*order))]

    def taken(self, adapter: str) -> list[Version]:
        """Every version there ever was: their numbers are not used again."""
        with self._store.read() as connection:
            rows = connection.execute(select(versions).where(versions.c.adapter == adapter))
            return [Version(**row._mapping) for row in rows]

    def get(self, adapter: str, version: str) -> Version:
        """Raises NotFound."""
        found = [each for each in self.all(adapter) if each.version == version]
        if not found:
            raise NotFound(f"no version {version!r} of {adapter!r} in the registry")
        return found[0]

    def history(self, adapter: str | None = None, limit: int = 100) -> list[Change]:
        """The newest change first."""
        query = select(history).order_by(history.c.number.desc()).limit(limit)
        if adapter is not None:
            query = query.where(history.c.adapter == adapter)
        with self._store.read() as connection:
            return [Change(**row._mapping) for row in connection.execute(query)]

    def change(
        self, adapter: str, alias: Alias, version: str | None, previous: str | None,
        action: Action, actor: Actor, apply: Callable[[], None],
    ) -> None:  # fmt: skip
        """Note a change and make it, or neither: `apply` runs before the note is committed."""
        with self._store.write() as connection:
            connection.execute(
                insert(history).values(
                    at_us=self._store.now_us(), adapter=adapter, alias=alias, version=version,
                    previous=previous, action=action, actor=actor.name,
                )
            )  # fmt: skip
            detail = {"alias": alias, "version": version, "previous": previous}
            audit.record(
                connection, self._store, actor, f"adapter.{action}", adapter, detail=detail
            )
            apply()

    def delete(self, adapter: str, version: str, actor: Actor, apply: Callable[[], None]) -> None:
        """Forget a version; its number and its name are never given again. Raises NotFound."""
        found = self.get(adapter, version)
        with self._store.write() as connection:
            connection.execute(
                update(versions)
                .where(versions.c.adapter == adapter, versions.c.version == version)
                .values(deleted_us=self._store.now_us())
            )
            audit.record(
                connection, self._store, actor, "adapter.delete", f"{adapter}@{version}",
                tenant_id=found.tenant_id,
            )  # fmt: skip
            apply()
