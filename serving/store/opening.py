"""Opens the store of a stack: migrated, with the tenant `default` and the stack's admin key."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select

from serving.store import audit
from serving.store.audit import SYSTEM
from serving.store.config import StoreConfig
from serving.store.database import Store, connect
from serving.store.keys import KeySpec, add_key
from serving.store.migrating import migrate
from serving.store.secret import key_hash
from serving.store.tables import keys, tenants
from serving.store.tenants import DEFAULT, add_tenant


def open_store(config: StoreConfig, folder: Path, admin_key: str | None = None) -> Store:
    """The store, ready for use. `folder` is `$CORRAL_HOME/store`.

    `admin_key` is the one in `$CORRAL_HOME/credentials`, of whatever format: it is let
    in as an admin of the tenant `default` unless it was revoked.
    Raises StoreUnavailable, StoreTooNew, Invalid.
    """
    store = connect(config, folder)
    try:
        migrate(store)
        store.set_clock()
        if admin_key is not None:
            _bootstrap(store, admin_key)
    except BaseException:
        store.close()
        raise
    return store


def _bootstrap(store: Store, admin_key: str) -> None:
    known = select(keys.c.id).where(keys.c.hash == key_hash(admin_key))
    with store.read() as connection:
        if connection.execute(known).first() is not None:
            return
    with store.write(announce=True) as connection:
        if not store.is_sqlite:  # of several first starts one does it
            connection.exec_driver_sql("LOCK TABLE tenants IN SHARE ROW EXCLUSIVE MODE")
        if connection.execute(known).first() is not None:
            return
        default = select(tenants.c.id).where(tenants.c.id == DEFAULT)
        if connection.execute(default).first() is None:
            add_tenant(connection, store, DEFAULT, DEFAULT, None)
            audit.record(connection, store, SYSTEM, "tenant.create", DEFAULT, tenant_id=DEFAULT)
        spec = KeySpec(DEFAULT, name="credentials", owner="system", role="admin")
        id = add_key(connection, store, spec, admin_key)
        audit.record(connection, store, SYSTEM, "key.import", id, tenant_id=DEFAULT)
