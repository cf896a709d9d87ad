"""API keys: made, listed, revoked, rotated, and told who they belong to."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from serving.store import audit
from serving.store.audit import Actor
from serving.store.database import Store
from serving.store.errors import Conflict, Invalid, KeyRefused, NotFound
from serving.store.identity import Allow, Identity, Role
from serving.store.secret import MAX_KEY_LENGTH, key_hash, key_prefix, new_id, new_key
from serving.store.tables import keys, limits, tenants

_NOBODY = "0" * 64
"""Compared with when no row has the prefix, so that both cases take the same steps."""
_UNKNOWN = "this API key is not known here; `corral keys create` makes one"


@dataclass(frozen=True)
class KeySpec:
    """What a new key may do. Lists are glob patterns; None allows what the tenant may use."""

    tenant_id: str
    name: str = ""
    owner: str = ""
    role: Role = "member"
    expires_us: int | None = None
    models: Sequence[str] | None = None
    adapters: Sequence[str] | None = None
    stores: Sequence[str] | None = None
    endpoints: Sequence[str] | None = None


@dataclass(frozen=True)
class Key(KeySpec):
    """A key as it is listed. `prefix` is its public part."""

    id: str = ""
    lineage: str = ""
    prefix: str = ""
    created_us: int = 0
    revoked_us: int | None = None
    replaced_by: str | None = None


@dataclass(frozen=True)
class NewKey:
    """A key just made. `secret` is shown this once."""

    key: Key
    secret: str


_LISTS = ("models", "adapters", "stores", "endpoints")
_SPEC = [field.name for field in fields(KeySpec)]
_COLUMNS = [keys.c[field.name] for field in fields(Key)]


class KeyStore:
    """The keys of all tenants."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, spec: KeySpec, actor: Actor) -> NewKey:
        """Raises NotFound for an unknown tenant, Invalid for an expiry that has passed."""
        if spec.expires_us is not None and spec.expires_us <= self._store.now_us():
            raise Invalid("the key would have expired already")
        secret = new_key()
        with self._store.write(announce=True) as connection:
            self._demand_tenant(connection, spec.tenant_id)
            id = add_key(connection, self._store, spec, secret)
            detail = {name: value for name, value in asdict(spec).items() if value is not None}
            audit.record(
                connection, self._store, actor, "key.create", id,
                tenant_id=spec.tenant_id, detail=detail,
            )  # fmt: skip
        return NewKey(self.get(id), secret)

    def all(self, tenant_id: str | None = None) -> list[Key]:
        """Of one tenant or of all, oldest first."""
        query = select(*_COLUMNS).order_by(keys.c.created_us, keys.c.id)
        if tenant_id is not None:
            query = query.where(keys.c.tenant_id == tenant_id)
        with self._store.read() as connection:
            return [_key(row) for row in connection.execute(query)]

    def get(self, id: str) -> Key:
        """By id or by public prefix. Raises NotFound."""
        with self._store.read() as connection:
            return self._find(connection, id)

    def revoke(self, id: str, actor: Actor) -> Key:
        """Let nobody in with it from now on. A second time changes nothing. Raises NotFound."""
        with self._store.write(announce=True) as connection:
            key = self._find(connection, id)
            if key.revoked_us is None:
                now = self._store.now_us()
                connection.execute(update(keys).where(keys.c.id == key.id).values(revoked_us=now))
                audit.record(
                    connection, self._store, actor, "key.revoke", key.id, tenant_id=key.tenant_id
                )
        return self.get(key.id)

    def rotate(self, id: str, overlap_s: float, actor: Actor) -> NewKey:
        """A new secret with all that the old one has; the old one lives for `overlap_s` more.

        Limits and usage go on under the same `lineage`. Raises NotFound, Conflict.
        """
        secret = new_key()
        with self._store.write(announce=True) as connection:
            old = self._find(connection, id)
            now = self._store.now_us()
            if old.revoked_us is not None or old.replaced_by is not None:
                state = "revoked" if old.revoked_us is not None else "rotated already"
                raise Conflict(f"key {old.id} is {state}; make a new one: `corral keys create`")
            if old.expires_us is not None and old.expires_us <= now:
                raise Conflict(f"key {old.id} has expired; make a new one: `corral keys create`")
            spec = KeySpec(**{name: getattr(old, name) for name in _SPEC})
            new = add_key(connection, self._store, spec, secret, lineage=old.lineage)
            ends = now + int(overlap_s * 1e6)
            ends = ends if old.expires_us is None else min(ends, old.expires_us)
            connection.execute(
                update(keys).where(keys.c.id == old.id).values(expires_us=ends, replaced_by=new)
            )
            audit.record(
                connection, self._store, actor, "key.rotate", old.id, tenant_id=old.tenant_id,
                detail={"replaced_by": new, "expires_us": ends},
            )  # fmt: skip
        return NewKey(self.get(new), secret)

    def identify(self, secret: str) -> Identity:
        """Who presents `secret`. Raises KeyRefused."""
        if len(secret) > MAX_KEY_LENGTH:
            raise KeyRefused(_UNKNOWN)
        query = (
            select(keys, tenants.c.disabled_us, tenants.c.cache_salt, tenants.c.models.label("t"))
            .join(tenants, tenants.c.id == keys.c.tenant_id)
            .where(keys.c.prefix == key_prefix(secret))
        )
        presented = key_hash(secret)
        with self._store.read() as connection:
            row = connection.execute(query).mappings().one_or_none()
            stored = row["hash"] if row is not None else _NOBODY
            if not hmac.compare_digest(stored, presented) or row is None:
                raise KeyRefused(_UNKNOWN)
            self._demand_live(row)
            scopes = (f"key:{row['lineage']}", f"tenant:{row['tenant_id']}")
            found = select(limits.c.scope).where(limits.c.scope.in_(scopes)).limit(1)
            limited = connection.execute(found).first() is not None
        return _identity(row, limited)

    def _demand_live(self, row: Any) -> None:
        if row["revoked_us"] is not None:
            raise KeyRefused("this API key was revoked", "key_revoked")
        if row["expires_us"] is not None and row["expires_us"] <= self._store.now_us():
            raise KeyRefused("this API key has expired", "key_expired")
        if row["disabled_us"] is not None:
            raise KeyRefused(f"tenant {row['tenant_id']!r} is disabled", "tenant_disabled")

    def _find(self, connection: Connection, id: str) -> Key:
        query = select(*_COLUMNS).where((keys.c.id == id) | (keys.c.prefix == id))
        row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound(f"no key {id!r}; `corral keys list` shows all")
        return _key(row)

    def _demand_tenant(self, connection: Connection, id: str) -> None:
        query = select(tenants.c.id).where(tenants.c.id == id)
        if connection.execute(query).first() is None:
            raise NotFound(f"no tenant {id!r}; `corral tenants create {id}`")


def add_key(
    connection: Connection, store: Store, spec: KeySpec, secret: str, lineage: str | None = None
) -> str:
    """Insert the row of `secret`; its id."""
    id = new_id("key")
    values = asdict(spec)
    for name in _LISTS:
        values[name] = None if values[name] is None else list(values[name])
    connection.execute(
        insert(keys).values(
            **values,
            id=id,
            lineage=lineage or id,
            prefix=key_prefix(secret),
            hash=key_hash(secret),
            created_us=store.now_us(),
        )
    )
    return id


def _key(row: Row[Any]) -> Key:
    values = dict(row._mapping)
    for name in _LISTS:
        values[name] = None if values[name] is None else tuple(values[name])
    return Key(**values)


def _identity(row: Any, limited: bool) -> Identity:
    return Identity(
        key_id=row["id"],
        lineage=row["lineage"],
        tenant_id=row["tenant_id"],
        role=row["role"],
        name=row["name"],
        models=Allow(row["models"]),
        tenant_models=Allow(row["t"]),
        adapters=Allow(row["adapters"]),
        stores=Allow(row["stores"]),
        endpoints=Allow(row["endpoints"]),
        cache_salt=row["cache_salt"],
        expires_us=row["expires_us"],
        limited=limited,
    )
