"""Which role a route needs. A route without a rule is closed, and a test fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

from fastapi import Request

from serving.gateway.errors import ApiError
from serving.gateway.gate import Gate
from serving.store.audit import Actor
from serving.store.identity import Identity

Access = Literal["public", "key", "operator", "admin"]
"""`key`: anybody with a key. `operator`: for monitoring, see `Identity.is_operator`."""

RULES: dict[str, Access] = {
    "/health": "public",
    "/ready": "public",
    "/docs": "public",
    "/docs/docs.js": "public",
    "/docs/docs.css": "public",
    "/openapi.json": "public",
    "/metrics": "operator",
    "/v1/models": "key",
    "/v1/models/{name:path}": "key",
    "/v1/files": "key",
    "/v1/files/{file_id}": "key",
    "/v1/files/{file_id}/content": "key",
    "/v1/fine_tuning/jobs": "key",
    "/v1/fine_tuning/jobs/{job_id}": "key",
    "/v1/fine_tuning/jobs/{job_id}/cancel": "key",
    "/v1/fine_tuning/jobs/{job_id}/pause": "key",
    "/v1/fine_tuning/jobs/{job_id}/resume": "key",
    "/v1/fine_tuning/jobs/{job_id}/events": "key",
    "/v1/fine_tuning/jobs/{job_id}/checkpoints": "key",
    "/v1/vector_stores": "key",
    "/v1/vector_stores/{store_id}": "key",
    "/v1/vector_stores/{store_id}/search": "key",
    "/v1/vector_stores/{store_id}/files": "key",
    "/v1/vector_stores/{store_id}/files/{file_id}": "key",
    "/v1/vector_stores/{store_id}/files/{file_id}/content": "key",
    "/v1/vector_stores/{store_id}/file_batches": "key",
    "/v1/vector_stores/{store_id}/file_batches/{batch_id}": "key",
    "/v1/vector_stores/{store_id}/file_batches/{batch_id}/cancel": "key",
    "/v1/vector_stores/{store_id}/file_batches/{batch_id}/files": "key",
}
"""By route template; every route under `/admin/` is for admins."""


def rule_of(template: str) -> Access | None:
    """The rule of a route; None closes it."""
    return "admin" if template.startswith("/admin/") else RULES.get(template)


def guard(gate: Gate) -> Callable[[Request], Awaitable[None]]:
    """A dependency of the whole application: applies `RULES`, and notes who asks."""

    async def apply(request: Request) -> None:
        rule = rule_of(request.scope["route"].path)
        if rule == "public":
            return
        identity = await gate.identify(request.scope["headers"])
        request.state.identity = identity
        if rule is None or not _has(identity, rule):
            needed = "an admin's" if rule == "admin" else "a service's or an admin's"
            raise ApiError(
                403, f"{request.url.path} needs {needed} key", code="insufficient_permissions"
            )
        check_endpoint(identity, request.url.path)

    return apply


def check_endpoint(identity: Identity, path: str) -> None:
    """Raises ApiError (403) when the key is not for this path."""
    if not identity.endpoints(path):
        raise ApiError(403, f"this API key may not use {path}", code="endpoint_not_allowed")


def caller(request: Request) -> Identity:
    """Who asks, after `guard` has let them in."""
    identity: Identity = request.state.identity
    return identity


async def actor(request: Request) -> Actor:
    """The same for the audit log."""
    request_id: str = request.scope["corral.request_id"]
    return Actor(caller(request).key_id, request_id)


def _has(identity: Identity, rule: Access) -> bool:
    if rule == "admin":
        return identity.is_admin
    return rule == "key" or identity.is_operator
