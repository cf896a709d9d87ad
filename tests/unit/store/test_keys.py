"""API keys: shown once, found by prefix, compared whole, revoked, expired, rotated."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import DBAPIError

from serving.store import audit, tables
from serving.store.audit import Actor
from serving.store.database import Store
from serving.store.errors import Conflict, Invalid, KeyRefused, NotFound
from serving.store.keys import KeySpec, KeyStore
from serving.store.secret import key_prefix, new_key
from serving.store.tenants import TenantStore
from tests.unit.store.conftest import ADMIN_KEY, Opener

ADA = Actor("key_ada", "req-1")


@pytest.fixture
def keys(store: Store) -> KeyStore:
    TenantStore(store).create("acme", ADA, models=["llama*"])
    return KeyStore(store)


def test_the_admin_key_of_the_stack_is_let_in(store: Store, opener: Opener) -> None:
    identity = KeyStore(store).identify(ADMIN_KEY)
    assert (identity.tenant_id, identity.role) == ("default", "admin")
    opener()
    assert len(KeyStore(store).all()) == 1


@pytest.mark.parametrize("old", ["sk-admin-WHsXcVIv1rP8sYrO2nmoRC8w", "sk:mine"])
def test_an_admin_key_of_an_older_format_keeps_working(
    old: str, store: Store, opener: Opener
) -> None:
    from serving.store.opening import _bootstrap

    _bootstrap(store, old)
    assert KeyStore(store).identify(old).is_admin
    with pytest.raises(KeyRefused):
        KeyStore(store).identify(old[:-1])


def test_a_key_is_shown_once_and_stored_hashed(keys: KeyStore, store: Store) -> None:
    made = keys.create(KeySpec("acme", name="ci", owner="ada"), ADA)
    assert made.secret.startswith(f"sk-{made.key.prefix}-")
    assert len(made.secret.split("-", 2)[2]) >= 32
    with store.read() as connection:
        rows = [str(dict(row._mapping)) for t in tables.metadata.sorted_tables
                for row in connection.execute(select(t))]  # fmt: skip
    assert not any(made.secret.split("-", 2)[2] in row for row in rows)
    assert made.secret not in repr(keys.all())


def test_who_presents_a_key(keys: KeyStore) -> None:
    spec = KeySpec("acme", role="service", models=["llama-3*"], adapters=["llama-3:cust-*"])
    made = keys.create(spec, ADA)
    identity = keys.identify(made.secret)
    assert (identity.key_id, identity.lineage) == (made.key.id, made.key.id)
    assert (identity.tenant_id, identity.role) == ("acme", "service")
    assert identity.may_use("llama-3")
    assert not identity.may_use("llama-2"), "the key allows less than the tenant"
    assert not identity.may_use("qwen"), "nor does the tenant allow it"
    assert identity.may_use("llama-3", "cust-7")
    assert not identity.may_use("llama-3", "other")
    assert identity.cache_salt not in repr(identity)


def test_an_empty_list_allows_nothing(keys: KeyStore) -> None:
    identity = keys.identify(keys.create(KeySpec("acme", endpoints=[]), ADA).secret)
    assert not identity.endpoints("/v1/models")
    assert identity.stores("any")


@pytest.mark.parametrize("tail", ["", "x", "-"])
def test_a_wrong_secret_under_a_right_prefix_is_refused(keys: KeyStore, tail: str) -> None:
    made = keys.create(KeySpec("acme"), ADA)
    with pytest.raises(KeyRefused, match="not known") as caught:
        keys.identify(made.secret[:-1] + tail)
    assert caught.value.code == "invalid_api_key"


@pytest.mark.parametrize("key", ["", "sk-", "sk-" + "x" * 5000, "nonsense", "ключ", "\udcff", "\0"])
def test_what_is_no_key_is_refused(keys: KeyStore, key: str) -> None:
    with pytest.raises(KeyRefused, match="not known"):
        keys.identify(key)


def test_a_revoked_key_is_refused_for_good(keys: KeyStore) -> None:
    made = keys.create(KeySpec("acme"), ADA)
    first = keys.revoke(made.key.prefix, ADA)
    assert keys.revoke(made.key.id, ADA).revoked_us == first.revoked_us
    with pytest.raises(KeyRefused) as caught:
        keys.identify(made.secret)
    assert caught.value.code == "key_revoked"


def test_an_expired_key_is_refused(keys: KeyStore, store: Store) -> None:
    made = keys.create(KeySpec("acme", expires_us=store.now_us() + 20_000), ADA)
    time.sleep(0.03)
    with pytest.raises(KeyRefused) as caught:
        keys.identify(made.secret)
    assert caught.value.code == "key_expired"
    with pytest.raises(Invalid):
        keys.create(KeySpec("acme", expires_us=1), ADA)


def test_keys_of_a_disabled_tenant_are_refused_until_it_is_enabled(
    keys: KeyStore, store: Store
) -> None:
    made = keys.create(KeySpec("acme"), ADA)
    TenantStore(store).set_disabled("acme", True, ADA)
    with pytest.raises(KeyRefused) as caught:
        keys.identify(made.secret)
    assert caught.value.code == "tenant_disabled"
    TenantStore(store).set_disabled("acme", False, ADA)
    assert keys.identify(made.secret).tenant_id == "acme"


def test_a_rotated_key_overlaps_and_hands_everything_on(keys: KeyStore) -> None:
    old = keys.create(KeySpec("acme", name="ci", models=["llama-3"], role="service"), ADA)
    new = keys.rotate(old.key.id, 60.0, ADA)
    before, after = keys.identify(old.secret), keys.identify(new.secret)
    assert before.expires_us is not None
    assert after.expires_us is None
    assert after.lineage == before.lineage == old.key.id
    assert (new.key.name, new.key.models, new.key.role) == ("ci", ("llama-3",), "service")
    with pytest.raises(Conflict, match="rotated already"):
        keys.rotate(old.key.id, 60.0, ADA)
    assert keys.rotate(new.key.id, 0.0, ADA).key.lineage == old.key.id
    with pytest.raises(KeyRefused):
        keys.identify(new.secret)


def test_a_rotation_lengthens_no_life(keys: KeyStore, store: Store) -> None:
    ends = store.now_us() + 5_000_000
    old = keys.create(KeySpec("acme", expires_us=ends), ADA)
    new = keys.rotate(old.key.id, 3600.0, ADA)
    assert new.key.expires_us == ends
    assert keys.get(old.key.id).expires_us == ends


def test_unknown_keys_and_tenants_are_named(keys: KeyStore) -> None:
    with pytest.raises(NotFound, match="no key 'nope'"):
        keys.revoke("nope", ADA)
    with pytest.raises(NotFound, match="no tenant 'nope'"):
        keys.create(KeySpec("nope"), ADA)


@pytest.mark.parametrize("id", ["", "A", "-a", "a@b", "a/b", "../a", "a" * 64])
def test_tenant_ids_are_slugs(store: Store, id: str) -> None:
    with pytest.raises(Invalid):
        TenantStore(store).create(id, ADA)


def test_a_tenant_exists_once(keys: KeyStore, store: Store) -> None:
    with pytest.raises(Conflict, match="exists already"):
        TenantStore(store).create("acme", ADA)
    assert [tenant.id for tenant in TenantStore(store).all()] == ["acme", "default"]


def test_every_change_is_in_the_audit_log(keys: KeyStore, store: Store) -> None:
    made = keys.create(KeySpec("acme"), ADA)
    keys.rotate(made.key.id, 1.0, ADA)
    keys.revoke(made.key.id, ADA)
    log = [(entry.actor, entry.action) for entry in audit.entries(store)]
    assert log == [
        ("key_ada", "key.revoke"), ("key_ada", "key.rotate"), ("key_ada", "key.create"),
        ("key_ada", "tenant.create"), ("system", "key.import"), ("system", "tenant.create"),
    ]  # fmt: skip
    assert made.secret not in repr(audit.entries(store))
    assert {entry.tenant_id for entry in audit.entries(store, tenant_id="acme")} == {"acme"}


def test_the_audit_log_only_grows(store: Store) -> None:
    changes = [update(tables.audit).values(actor="nobody"), delete(tables.audit)]
    if not store.is_sqlite:
        changes.append(text("TRUNCATE audit"))  # type: ignore[arg-type]
    for change in changes:
        with pytest.raises(DBAPIError, match="append-only"), store.write() as connection:
            connection.execute(change)
    assert audit.entries(store)[-1].actor == "system"


def test_the_public_part_of_a_key() -> None:
    key = new_key()
    assert key_prefix(key) == key[3:11]
    assert key_prefix("sk-admin-x") != "admin"
    assert len({new_key() for _ in range(100)}) == 100
