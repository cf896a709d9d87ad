"""API keys and ids: their form, and what is stored of them. Standard library only.

A key is `sk-<8 public characters>-<43 secret ones>`. The public part finds its row; the
secret has 256 random bits, so that a plain SHA-256 of the whole key is enough: there is
nothing to guess for which a slow hash would buy time.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_FORMAT = re.compile(r"sk-([a-z0-9]{8})-[A-Za-z0-9_-]{32,86}")
MAX_KEY_LENGTH = 512
"""Longer strings are no keys and are not even hashed."""


def new_key() -> str:
    """A fresh API key."""
    prefix = "".join(secrets.choice(_ALPHABET) for _ in range(8))
    return f"sk-{prefix}-{secrets.token_urlsafe(32)}"


def key_digest(key: str) -> bytes:
    """SHA-256 of the whole key; of any string, also one that is no valid Unicode."""
    return hashlib.sha256(key.encode(errors="backslashreplace")).digest()


def key_hash(key: str) -> str:
    """What is stored of a key: its digest in hex."""
    return key_digest(key).hex()


def key_prefix(key: str) -> str:
    """The public part of `key`; for one of another format, 16 characters of its hash."""
    match = _FORMAT.fullmatch(key)
    return match[1] if match else key_hash(key)[:16]


def new_id(kind: str) -> str:
    """`<kind>_` and 26 characters: milliseconds, then 80 random bits; later ids sort later."""
    return f"{kind}_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
