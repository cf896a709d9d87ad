"""What the gateway asks on every request: who presents this key?

A hit costs a SHA-256, a look at the stamp and one in a dictionary. Keys themselves are
never kept, only digests of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from serving.store.database import Store
from serving.store.errors import KeyRefused
from serving.store.identity import Identity
from serving.store.secret import key_digest

T = TypeVar("T")
MAX_ENTRIES = 20_000
"""Of each kind, known and refused; the oldest give way."""


@dataclass(frozen=True, slots=True)
class _Known:
    identity: Identity
    until_s: float
    """Monotonic."""


@dataclass(frozen=True, slots=True)
class _Refused:
    error: KeyRefused
    until_s: float


class KeyCache:
    """One gateway process's view of the keys. For one event loop; `find` is for any thread."""

    def __init__(
        self,
        store: Store,
        max_age_s: float,
        identify: Callable[[str], Identity],
        max_entries: int = MAX_ENTRIES,
    ) -> None:
        self._store = store
        self._identify = identify  # KeyStore.identify or TokenDoor.identify
        self._max_age_s = max_age_s
        self._max_entries = max_entries
        self._stamp: object = None
        self._known: dict[bytes, _Known] = {}
        self._refused: dict[bytes, _Refused] = {}
        self._loading: dict[tuple[bytes, object], asyncio.Task[Identity]] = {}

    def find(self, key: str) -> Identity | None:
        """From memory; None when the store must be asked. Raises KeyRefused."""
        digest = key_digest(key)
        stamp = self._store.stamp.read()
        if stamp != self._stamp:
            self._known.clear()
            self._refused.clear()
            self._stamp = stamp
            return None
        known = self._known.get(digest)
        if known is not None:
            if known.until_s < time.monotonic():
                return None
            expires = known.identity.expires_us
            if expires is not None and expires <= self._store.now_us():
                raise KeyRefused("this API key has expired", "key_expired")
            return known.identity
        refused = self._refused.get(digest)
        if refused is not None and refused.until_s >= time.monotonic():
            raise KeyRefused(str(refused.error), refused.error.code)
        return None

    async def authenticate(self, key: str) -> Identity:
        """Who presents `key`. Raises KeyRefused, StoreUnavailable."""
        identity = self.find(key)
        if identity is not None:
            return identity
        digest = key_digest(key)
        load = (digest, self._stamp)  # one begun before a change is not shared after it
        task = self._loading.get(load)
        if task is None:  # requests that come together ask the store once
            task = asyncio.ensure_future(self._load(key, digest))
            self._loading[load] = task
            task.add_done_callback(lambda _: self._loading.pop(load, None))
        return await asyncio.shield(task)

    async def _load(self, key: str, digest: bytes) -> Identity:
        stamp = self._store.stamp.read()
        until_s = time.monotonic() + self._max_age_s
        try:
            identity = await asyncio.to_thread(self._identify, key)
        except KeyRefused as exc:
            if stamp == self._stamp:
                _keep(self._refused, digest, _Refused(exc, until_s), self._max_entries)
            raise
        if stamp == self._stamp:
            _keep(self._known, digest, _Known(identity, until_s), self._max_entries)
        return identity


def _keep(cache: dict[bytes, T], digest: bytes, entry: T, most: int) -> None:
    cache.pop(digest, None)
    if len(cache) >= most:
        del cache[next(iter(cache))]
    cache[digest] = entry
