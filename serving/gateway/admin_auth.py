"""On whose behalf an admin route acts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Request

from serving.store.audit import Actor

Authorize = Callable[[Request], Awaitable[Actor]]
"""A dependency of every admin route that changes something."""
