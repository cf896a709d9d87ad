"""The gateway's routes. `/v1/*` of the engines goes to `Proxy`; the rest is answered here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.config import GatewayConfig
from serving.errors import CorralError
from serving.finetuning.aliases import Aliases
from serving.finetuning.service import Finetuning
from serving.finetuning.shop import Shop
from serving.gateway.access import actor, caller, guard
from serving.gateway.admin import admin_router
from serving.gateway.admin_keys import keys_router, tenants_router
from serving.gateway.admin_usage import limits_router, usage_router
from serving.gateway.answers import Health, ModelCard, ModelList, Ready, answers
from serving.gateway.directory import ENDPOINTS, Directory
from serving.gateway.door import RESPONSE_HEADERS, Door, with_headers
from serving.gateway.errors import ApiError, from_corral
from serving.gateway.files import files_router
from serving.gateway.finetuning import finetuning_router
from serving.gateway.gate import Gate, KeyGate, OpenGate
from serving.gateway.grounder import Grounder
from serving.gateway.metrics import GatewayMetrics, merge
from serving.gateway.model_deletion import deletion_router
from serving.gateway.openapi.page import add_pages
from serving.gateway.pool import statuses
from serving.gateway.proxy import Proxy
from serving.gateway.registry import registry_router
from serving.gateway.vector_files import store_batches_router, store_files_router
from serving.gateway.vector_stores import stores_router
from serving.retrieval.service import Retrieval
from serving.store.accounts import Accounts

VERSION = "1"
"""Of the API, not of the software."""

SHORT_PATHS = {"/rerank": "/v1/rerank", "/v2/rerank": "/v1/rerank", "/score": "/v1/score"}
"""Paths other servers also answer, and ours for them."""


@dataclass
class Gateway:
    """What the routes share."""

    config: GatewayConfig
    directory: Directory
    metrics: GatewayMetrics
    peer_metrics: Callable[[], Awaitable[list[tuple[str, str]]]]
    """Expositions of all gateway processes, by replica id."""
    accounts: Accounts | None = None
    """Keys, tenants, limits and the ledger; None lets everybody in and charges nobody."""
    finetuning: Finetuning | None = None
    """Files, jobs and registry; None leaves them out."""
    retrieval: Retrieval | None = None
    """Vector stores; None leaves them out."""

    def gate(self) -> Gate:
        """Who is let in."""
        return OpenGate() if self.accounts is None else KeyGate(self.accounts, self.metrics)


def build_app(gateway: Gateway) -> ASGIApp:
    """The ASGI application of one gateway process."""
    gate = gateway.gate()
    app = FastAPI(
        title="corral",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=_background(gateway),
        dependencies=[Depends(guard(gate))],
    )
    app.state.gateway = gateway
    _add_status_routes(app, gateway)
    _add_admin_routes(app, gateway)
    if gateway.finetuning is not None:
        _add_finetuning_routes(app, gateway, gateway.finetuning.shop)
    if gateway.retrieval is not None:
        for make in (stores_router, store_files_router, store_batches_router):
            app.include_router(make(gateway.retrieval, actor))
    add_pages(app, gateway.config.limits, SHORT_PATHS)
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(CorralError, _on_corral_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(Exception, _on_bug)
    grounder = None if gateway.retrieval is None else Grounder(gateway.retrieval)
    proxy = Proxy(gateway.config, gateway.directory, gateway.metrics, gate, grounder)
    return Door(_HotPath(app, proxy), gateway.config.http, gateway.config.cors)


def _background(gateway: Gateway) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """What runs beside the requests, from the application's start to its end."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if gateway.finetuning is not None:
                pools = {name: served.pool for name, served in gateway.directory.models.items()}
                await stack.enter_async_context(gateway.finetuning.running(pools))
            if gateway.retrieval is not None:
                running = gateway.retrieval.running(gateway.directory, gateway.metrics)
                await stack.enter_async_context(running)
            yield

    return lifespan


class _HotPath:
    """Sends the engines' paths straight to the proxy, past FastAPI's layers."""

    def __init__(self, app: FastAPI, proxy: Proxy) -> None:
        self._app = app
        self._proxy = proxy
        self.routes = [Route(path, _unrouted) for path in sorted(ENDPOINTS)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = SHORT_PATHS.get(scope["path"], scope["path"])
            if path in ENDPOINTS:
                scope["path"] = path
                await self._proxy(scope, receive, send)
                return
            await self._app(scope, receive, with_headers(send, scope[RESPONSE_HEADERS]))
            return
        await self._app(scope, receive, send)


async def _unrouted(request: Request) -> Response:
    raise AssertionError("the proxy answers this path")


def _add_admin_routes(app: FastAPI, gateway: Gateway) -> None:
    aliases = None if gateway.finetuning is None else Aliases(gateway.finetuning.shop)
    app.include_router(admin_router(gateway.directory, actor, aliases))
    if gateway.accounts is not None:
        for make in (keys_router, tenants_router, limits_router, usage_router):
            app.include_router(make(gateway.accounts, actor))


def _add_finetuning_routes(app: FastAPI, gateway: Gateway, shop: Shop) -> None:
    files, stall_s = shop.settings.config.files, gateway.config.http.body_timeout_s
    app.include_router(files_router(shop.store, shop.blobs, files, stall_s, actor))
    for make in (finetuning_router, registry_router, deletion_router):
        app.include_router(make(shop, gateway.directory, actor))


def _add_status_routes(app: FastAPI, gateway: Gateway) -> None:
    directory = gateway.directory

    @app.get("/health", tags=["status"], responses=answers(Health))
    async def health() -> dict[str, str]:
        """The process is up. Says nothing of the engines: see /ready."""
        return {"status": "ok"}

    @app.get("/ready", tags=["status"], responses=answers(Ready, 503))
    async def ready(response: Response) -> dict[str, Any]:
        """200 when every model generates, 503 with the reason of each that does not."""
        served = directory.models
        capacities = await asyncio.gather(*(s.pool.capacity() for s in served.values()))
        models = {
            name: {"ready": c.ready, "replicas": c.replicas, "detail": c.detail}
            for name, c in zip(served, capacities, strict=True)
        }
        if not all(c.ready for c in capacities):
            response.status_code = 503
        return {"ready": all(c.ready for c in capacities), "models": models}

    @app.get("/metrics", tags=["status"], response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        """Prometheus: every gateway process and every engine replica, told apart by labels."""
        sources = [({"gateway": name}, text) for name, text in await gateway.peer_metrics()]
        pools = (served.pool for served in directory.models.values())
        for answer in await asyncio.gather(*map(statuses, pools)):
            for status in answer:
                labels = {"replica": status["replica"], "model": status["model"]}
                sources.append((labels, status["metrics"]))
        text = await asyncio.to_thread(merge, sources)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models", tags=["models"], responses=answers(ModelList))
    async def models(request: Request) -> dict[str, Any]:
        """Base models and adapters that the key may use; an adapter's `parent` is its base."""
        return {"object": "list", "data": directory.cards(caller(request).may_use)}

    @app.get("/v1/models/{name:path}", tags=["models"], responses=answers(ModelCard))
    async def model(request: Request, name: str) -> dict[str, Any]:
        """One model or adapter."""
        return directory.card(name, caller(request).may_use)


async def _on_api_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, ApiError)
    return _response(request, exc)


async def _on_corral_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, CorralError)
    return _response(request, from_corral(exc))


async def _on_http_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    message = f"no route {request.method} {request.url.path}" if exc.status_code == 404 else None
    headers = [(name.encode(), value.encode()) for name, value in (exc.headers or {}).items()]
    return _response(
        request, ApiError(exc.status_code, message or str(exc.detail), headers=headers)
    )


async def _on_invalid(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    first = exc.errors()[0]
    param = ".".join(str(part) for part in first["loc"] if part != "body")
    return _response(request, ApiError(400, f"{param}: {first['msg']}", param=param))


async def _on_bug(request: Request, exc: Exception) -> Response:
    """Starlette raises it again afterwards, for the server's log."""
    return _response(request, ApiError(500, "internal error", code="internal_error"))


def _response(request: Request, error: ApiError) -> Response:
    headers = {name.decode(): value.decode() for name, value in error.headers}
    body = error.body(request.url.path)
    return Response(body, error.status, headers, media_type="application/json")
