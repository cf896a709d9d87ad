"""Who may use the admin routes. One place, so that another rule can take its place."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable

from fastapi import Request

from serving.gateway.errors import ApiError
from serving.store.audit import Actor

Authorize = Callable[[Request], Awaitable[Actor]]
"""A dependency of every admin route: on whose behalf, or an ApiError (401, 403)."""


def admin_key_only(admin_key: str) -> Authorize:
    """Demands `Authorization: Bearer <admin key>`."""

    async def authorize(request: Request) -> Actor:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secrets.compare_digest(
            key.encode(), admin_key.encode()
        ):
            raise ApiError(
                401,
                "admin routes need `Authorization: Bearer <key>`; the key is in "
                "$CORRAL_HOME/credentials",
                code="invalid_api_key",
                headers=[(b"www-authenticate", b"Bearer")],
            )
        return Actor("admin key", request.headers.get("x-request-id", "")[:128] or None)

    return authorize
