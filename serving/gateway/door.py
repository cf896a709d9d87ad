"""The outermost layer of the gateway: request ids, header limits, origins, HEAD.

It works on the head of requests and answers only. Engines' answers pass it untouched: the
proxy adds `RESPONSE_HEADERS` of the scope itself, so that a chunk costs nothing here.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.gateway.door_config import CorsConfig, HttpLimits
from serving.gateway.errors import ApiError

REQUEST_ID = "corral.request_id"
"""Key of the ASGI scope: this request's id, the same in the engine, the logs and the answer."""
RESPONSE_HEADERS = "corral.response_headers"
"""Key of the ASGI scope: headers every answer to this request bears."""

Headers = list[tuple[bytes, bytes]]

_WELL_FORMED = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_SECURITY: Headers = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
_EXPOSED = b"x-request-id, retry-after, x-ratelimit-limit-requests, x-ratelimit-remaining-requests"
_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"


class Door:
    """Wraps the gateway's application."""

    def __init__(self, app: ASGIApp, limits: HttpLimits, cors: CorsConfig) -> None:
        self._app = app
        self._limits = limits
        self._cors = cors
        self._origins = frozenset(origin.encode() for origin in cors.origins)
        self._any_origin = b"*" in self._origins
        self.routes = getattr(app, "routes", [])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: Headers = scope["headers"]
        scope[REQUEST_ID] = request_id = _request_id(headers)
        added = [(b"x-request-id", request_id.encode()), *_SECURITY]
        origin = self._allowed_origin(headers) if self._origins else None
        if origin is not None:
            added += self._cors_headers(origin)
        scope[RESPONSE_HEADERS] = added
        try:
            self._check(headers)
        except ApiError as exc:
            await exc.send(scope["path"], with_headers(send, added))
            return
        if scope["method"] == "OPTIONS" and _value(headers, b"access-control-request-method"):
            await self._preflight(scope["path"], origin, with_headers(send, added))
        elif scope["method"] == "HEAD":
            await self._app({**scope, "method": "GET"}, receive, _without_body(send))
        else:
            await self._app(scope, receive, send)

    def _check(self, headers: Headers) -> None:
        limits = self._limits
        if len(headers) > limits.max_headers:
            raise ApiError(
                400, f"{len(headers)} header lines; at most {limits.max_headers} are accepted"
            )
        size = sum(len(name) + len(value) + 4 for name, value in headers)
        if size > limits.max_header_bytes:
            raise ApiError(
                400, f"{size} bytes of headers; at most {limits.max_header_bytes} are accepted"
            )

    def _allowed_origin(self, headers: Headers) -> bytes | None:
        origin = _value(headers, b"origin")
        return origin if origin and (self._any_origin or origin in self._origins) else None

    def _cors_headers(self, origin: bytes) -> Headers:
        allowed = b"*" if self._any_origin else origin
        found = [(b"access-control-allow-origin", allowed)]
        found.append((b"access-control-expose-headers", _EXPOSED))
        return found if self._any_origin else [*found, (b"vary", b"origin")]

    async def _preflight(self, path: str, origin: bytes | None, send: Send) -> None:
        if origin is None:
            error = ApiError(403, "this origin may not call; see gateway.cors.origins")
            await error.send(path, send)
            return
        headers = [
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", b"authorization, content-type, x-api-key, *"),
            (b"access-control-max-age", str(self._cors.max_age_s).encode()),
        ]
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def with_headers(send: Send, added: Headers) -> Send:
    """`send`, with these headers on the answer's head, in place of its own of the same name."""
    names = {name for name, _ in added}

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [pair for pair in message.get("headers", ()) if pair[0].lower() not in names]
            message = {**message, "headers": [*own, *added]}
        await send(message)

    return sending


def _without_body(send: Send) -> Callable[[Any], Awaitable[None]]:
    async def sending(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return sending


def _request_id(headers: Headers) -> str:
    """The client's own id where there is one and it is well-formed, else a new one."""
    given = _value(headers, b"x-request-id")
    if given is not None and _WELL_FORMED.fullmatch(given):
        return given.decode("ascii")
    return uuid.uuid4().hex


def _value(headers: Headers, name: bytes) -> bytes | None:
    """The header's value; None where it is missing or given twice."""
    found = [value for key, value in headers if key == name]
    return found[0] if len(found) == 1 else None
