"""The gateway's view of keys: quick, and never behind a revocation."""

from __future__ import annotations

import asyncio
import gc

import pytest

from serving.store.audit import SYSTEM
from serving.store.database import Store
from serving.store.errors import KeyRefused
from serving.store.key_cache import KeyCache
from serving.store.keys import KeySpec, KeyStore
from tests.unit.store.conftest import Opener


async def _refused(cache: KeyCache, key: str) -> str:
    """The code with which the key is refused, in the end; the stamp may take a moment."""
    async with asyncio.timeout(5):
        while True:
            try:
                await cache.authenticate(key)
            except KeyRefused as exc:
                return exc.code
            await asyncio.sleep(0.005)


async def test_a_known_key_is_found_without_the_database(store: Store) -> None:
    cache = KeyCache(store, 60, KeyStore(store).identify)
    made = KeyStore(store).create(KeySpec("default"), SYSTEM)
    assert cache.find(made.secret) is None
    identity = await cache.authenticate(made.secret)
    store.engine.dispose()
    assert cache.find(made.secret) is identity


async def test_another_gateway_hears_of_a_revocation(opener: Opener) -> None:
    here, there = opener(), opener()
    cache = KeyCache(there, 3600, KeyStore(there).identify)
    made = KeyStore(here).create(KeySpec("default"), SYSTEM)
    await cache.authenticate(made.secret)
    KeyStore(here).revoke(made.key.id, SYSTEM)
    assert await _refused(cache, made.secret) == "key_revoked"


async def test_a_refused_key_counts_once_it_is_made(store: Store) -> None:
    cache = KeyCache(store, 3600, KeyStore(store).identify)
    secret = "sk-" + "b" * 8 + "-" + "c" * 43
    for _ in range(2):
        with pytest.raises(KeyRefused, match="not known"):
            await cache.authenticate(secret)
    from serving.store.keys import add_key

    with store.write(announce=True) as connection:
        add_key(connection, store, KeySpec("default"), secret)
    async with asyncio.timeout(5):
        while True:
            try:
                assert (await cache.authenticate(secret)).tenant_id == "default"
                break
            except KeyRefused:
                await asyncio.sleep(0.005)


async def test_a_key_expires_in_the_cache_too(store: Store) -> None:
    cache = KeyCache(store, 3600, KeyStore(store).identify)
    made = KeyStore(store).create(KeySpec("default", expires_us=store.now_us() + 200_000), SYSTEM)
    await cache.authenticate(made.secret)
    assert await _refused(cache, made.secret) == "key_expired"


async def test_what_it_knows_grows_old(store: Store) -> None:
    cache = KeyCache(store, 0.01, KeyStore(store).identify)
    made = KeyStore(store).create(KeySpec("default"), SYSTEM)
    await cache.authenticate(made.secret)
    await asyncio.sleep(0.02)
    assert cache.find(made.secret) is None


async def test_it_is_bounded_and_holds_no_keys(store: Store) -> None:
    cache = KeyCache(store, 3600, KeyStore(store).identify, max_entries=3)
    made = [KeyStore(store).create(KeySpec("default"), SYSTEM).secret for _ in range(5)]
    await asyncio.sleep(0.05)
    for secret in made:
        await cache.authenticate(secret)
        with pytest.raises(KeyRefused):
            await cache.authenticate(secret + "x")
    assert [cache.find(secret) is not None for secret in made] == [False, False, True, True, True]
    held = [vars(cache)[name] for name in ("_known", "_refused")]
    assert [len(part) for part in held] == [3, 3]
    assert not any(secret in repr(held) for secret in made)


async def test_requests_that_come_together_ask_the_store_once(store: Store) -> None:
    cache = KeyCache(store, 3600, KeyStore(store).identify)
    secret = KeyStore(store).create(KeySpec("default"), SYSTEM).secret
    cache.find(secret)
    identities = await asyncio.gather(*(cache.authenticate(secret) for _ in range(20)))
    assert len({id(identity) for identity in identities}) == 1
    gc.collect()
