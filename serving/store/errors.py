"""Errors of the store.

StoreError (CorralError)
├── StoreUnavailable      the database does not answer; nothing was changed, or it is not known
├── StoreTooNew           made by a newer corral
├── NotFound              (also LookupError) no such key, tenant, limit or blob for this caller
├── Conflict              it exists already, or its state forbids the change
├── Invalid               (also ValueError) a value that cannot be stored as given
└── KeyRefused            the presented key or token lets nobody in; `code` says why
"""

from __future__ import annotations

from typing import Literal

from serving.errors import CorralError

Reason = Literal["invalid_api_key", "key_revoked", "key_expired", "tenant_disabled"]


class StoreError(CorralError):
    """Base of every error of the store."""


class StoreUnavailable(StoreError):
    """The database does not answer in time."""


class StoreTooNew(StoreError):
    """The database was migrated by a newer corral than this one."""


class NotFound(StoreError, LookupError):
    """Nothing of that name that the caller may see."""


class Conflict(StoreError):
    """The change contradicts what is stored."""


class Invalid(StoreError, ValueError):
    """A value outside of what the store can hold exactly."""


class KeyRefused(StoreError):
    """Nobody is let in with this key or token. The message may be shown to its bearer."""

    def __init__(self, message: str, code: Reason = "invalid_api_key") -> None:
        super().__init__(message)
        self.code: Reason = code
