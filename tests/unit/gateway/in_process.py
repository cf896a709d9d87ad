"""The gateway on a real socket, with real engines or scripted replicas behind it, without Ray.

async with gateway(tmp_path, local("fake", tokens=4)) as site:
    await site.http.post("/v1/completions", json={"prompt": "x"})
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from openai import AsyncOpenAI
from prometheus_client.parser import text_string_to_metric_families
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.adapters import AdapterStore
from serving.config import FakeConfig, GatewayConfig, ModelConfig, ReplicaConfig
from serving.engines.base import AdapterRef, EngineSpec
from serving.engines.fake import FakeEngine
from serving.finetuning.service import Finetuning
from serving.gateway.app import Gateway, build_app
from serving.gateway.directory import build_directory
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.pool import Capacity, Lease, Pool
from serving.home import Home
from serving.local_pool import LocalPool
from serving.retrieval.service import Retrieval
from serving.store.accounts import Accounts

ADMIN_KEY = "sk-admin-test"
WAIT_S = 20.0
"""Nothing here takes that long; a wait that does has failed."""

Script = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
"""Answers one request of a scripted replica: its bytes, and where the answer goes."""


def local(name: str, *, max_ongoing: int = 64, **fake: Any) -> ModelConfig:
    """A model of the fake engine."""
    replicas = ReplicaConfig(max_ongoing_requests=max_ongoing)
    return ModelConfig(name=name, engine=FakeConfig(**fake), replicas=replicas)


class CancelOnDisconnect:
    """Cancels a request when its client goes away, as Serve does; uvicorn only says so."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        messages: asyncio.Queue[Message] = asyncio.Queue()
        request = asyncio.ensure_future(self._app(scope, messages.get, send))

        async def watch() -> None:
            while True:
                message = await receive()
                messages.put_nowait(message)
                if message["type"] == "http.disconnect":
                    return

        watcher = asyncio.ensure_future(watch())
        await asyncio.wait((request, watcher), return_when=asyncio.FIRST_COMPLETED)
        watcher.cancel()
        if request.done():
            request.result()
            return
        request.cancel()
        with suppress(asyncio.CancelledError):
            await request


class _Server(uvicorn.Server):
    """Ends when told to; uvicorn itself looks ten times a second and pauses afterwards."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.leave = asyncio.Event()

    async def main_loop(self) -> None:
        await self.leave.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        while self.server_state.connections:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@asynccontextmanager
async def listening(app: ASGIApp) -> AsyncIterator[str]:
    """Base URL of `app`, served by uvicorn on a free port."""
    config = uvicorn.Config(
        app, port=0, lifespan="off", log_config=None, timeout_graceful_shutdown=1
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.002)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.leave.set()
        await task


@dataclass(frozen=True)
class Site:
    """A running gateway."""

    url: str
    http: httpx.AsyncClient
    pools: Mapping[str, Pool]
    metrics: GatewayMetrics
    home: Home
    app: FastAPI
    """Within the gateway's layers."""

    @property
    def routes(self) -> Sequence[BaseRoute]:
        """FastAPI's; those of the engines are `directory.ENDPOINTS`."""
        return self.app.routes

    def openai(self) -> AsyncOpenAI:
        """The unmodified client, without retries of its own."""
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)

    async def running(self, model: str) -> float:
        """Requests in the model's engine, by its own gauge."""
        statuses = await self.pools[model].broadcast("status")
        return sum(sample(status["metrics"], "vllm:num_requests_running") for status in statuses)

    async def until_idle(self, model: str) -> None:
        """Return when the engine computes nothing."""
        async with asyncio.timeout(WAIT_S):
            while await self.running(model):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def until_busy(self, model: str, requests: int = 1) -> None:
        """Return when the engine works on that many requests."""
        async with asyncio.timeout(WAIT_S):
            while await self.running(model) != requests:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@asynccontextmanager
async def gateway(
    root: Path,
    *models: ModelConfig,
    pools: Mapping[str, Pool] | None = None,
    wrap: Callable[[str, Pool], Pool] = lambda _, pool: pool,
    config: GatewayConfig | None = None,
    accounts: Accounts | None = None,
    finetuning: Finetuning | None = None,
    retrieval: Retrieval | None = None,
) -> AsyncIterator[Site]:
    """A gateway before `models`: with a fake engine each, or with the pool given for it."""
    home = Home(root)
    metrics = GatewayMetrics()
    async with AsyncExitStack() as stack:
        started: dict[str, Pool] = dict(pools or {})
        for model in models:
            if model.name not in started:
                assert isinstance(model.engine, FakeConfig)
                engine = FakeEngine(EngineSpec(model.name, None), model.engine)
                pool = await stack.enter_async_context(LocalPool(model, engine, root))
                started[model.name] = wrap(model.name, pool)
        directory = build_directory(
            models, started.__getitem__, AdapterStore(home, models), created=7
        )

        async def own_metrics() -> list[tuple[str, str]]:
            return [("gateway-1", metrics.exposition())]

        shared = Gateway(config or GatewayConfig(), directory, metrics, own_metrics)
        app = build_app(
            replace(shared, accounts=accounts, finetuning=finetuning, retrieval=retrieval)
        )
        if finetuning is not None:
            await stack.enter_async_context(finetuning.running(started))
        if retrieval is not None:
            await stack.enter_async_context(retrieval.running(directory, metrics))
        url = await stack.enter_async_context(listening(CancelOnDisconnect(app)))
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=WAIT_S))
        yield Site(url, http, started, metrics, home, _innermost(app))


def _innermost(app: Any) -> FastAPI:
    while not isinstance(app, FastAPI):
        app = app._app
    return app


@dataclass
class StubLease:
    """A lease that remembers its end."""

    address: str
    ticket: str = "ticket"
    ended: list[str] = field(default_factory=list)

    def release(self) -> None:
        self.ended.append("released")

    def abandon(self) -> None:
        self.ended.append("abandoned")


@dataclass
class StubPool:
    """Gives out what it was given, in order: leases, errors to raise, or another pool's leases."""

    offers: list[Lease | Pool | Exception]
    asked: list[AdapterRef | None] = field(default_factory=list)

    async def lease(self, adapter: AdapterRef | None, deadline_s: float) -> Lease:
        self.asked.append(adapter)
        offer = self.offers.pop(0)
        if isinstance(offer, Exception):
            raise offer
        if isinstance(offer, StubLease):
            return offer
        return await offer.lease(adapter, deadline_s)  # type: ignore[union-attr]

    async def capacity(self) -> Capacity:
        return Capacity(ready=False, replicas=0, detail="stub")

    async def broadcast(self, method: str, *args: Any) -> list[Any]:
        offer = self.offers[0] if self.offers else None
        if isinstance(offer, Exception):
            raise offer
        return []


@dataclass
class ScriptedReplica:
    """A replica that does as it is told: one script a request, the last one repeated."""

    address: str
    requests: list[bytes]
    """What was asked of it, head and body."""
    connections: int = 0

    def lease(self) -> StubLease:
        return StubLease(self.address)


@asynccontextmanager
async def scripted(path: Path, *scripts: Script) -> AsyncIterator[ScriptedReplica]:
    """Serve `scripts` on a Unix socket at `path`."""
    replica = ScriptedReplica(str(path), [])
    open_writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        replica.connections += 1
        open_writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                request = await _read_request(reader)
                replica.requests.append(request)
                await scripts[min(len(replica.requests), len(scripts)) - 1](request, writer)
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield replica
    finally:
        await asyncio.sleep(0.005)  # a connection may be accepted and not yet served
        server.close()
        for writer in open_writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


def whole(
    body: bytes = b"{}", status: int = 200, headers: Sequence[str] = ("content-type: text/plain",)
) -> Script:
    """Answer with a plain body."""
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", *headers, "", ""]
    return raw("\r\n".join(lines).encode() + body)


def raw(data: bytes, *, then_close: bool = False) -> Script:
    """Answer with these bytes."""

    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if then_close:
            writer.close()

    return answer


CHUNKED = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; of empty data, the last."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def sample(text: str, name: str, **labels: str) -> float:
    """Sum of the samples of `name` that bear `labels`."""
    return sum(
        found.value
        for family in text_string_to_metric_families(text)
        for found in family.samples
        if found.name == name and labels.items() <= found.labels.items()
    )


def write_adapter(root: Path, name: str, version: str, base: str = "fake") -> None:
    """A small adapter that passes the checks of a model without weights."""
    folder = root / "adapters" / name / version
    folder.mkdir(parents=True)
    settings = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    header = {
        f"base_model.model.model.layers.0.self_attn.q_proj.lora_{side}.weight": {
            "dtype": "F32",
            "shape": shape,
            "data_offsets": [offset, offset + 64],
        }
        for side, shape, offset in (("A", [4, 4], 0), ("B", [4, 4], 64))
    }
    encoded = json.dumps(header).encode()
    weights = len(encoded).to_bytes(8, "little") + encoded + b"\x3f" * 128
    (folder / "adapter_model.safetensors").write_bytes(weights)


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return head + await reader.readexactly(int(lengths[0].split(b":")[1]) if lengths else 0)
