"""/openapi.json, and /docs: a page that shows it with a script and a style of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
from fastapi import FastAPI
from fastapi.responses import Response

from serving.gateway.limits import RequestLimits
from serving.gateway.openapi.document import build

_FOLDER = Path(__file__).parent
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGES = {
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/docs/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
    "/docs/docs.css": ("docs.css", "text/css; charset=utf-8"),
}


def add_pages(app: FastAPI, limits: RequestLimits, aliases: dict[str, str]) -> None:
    """Add the routes. The document is made on first use, from the routes there are then."""
    made: list[bytes] = []

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        """This document."""
        if not made:
            made.append(msgspec.json.encode(build(app, limits, aliases)))
        return Response(made[0], media_type="application/json")

    for path, (name, media_type) in _PAGES.items():
        app.get(path, include_in_schema=False)(_page(name, media_type))


def _page(name: str, media_type: str) -> Callable[[], Response]:
    content = (_FOLDER / name).read_bytes()

    def page() -> Response:
        return Response(
            content, media_type=media_type, headers={"content-security-policy": _POLICY}
        )

    return page
