"""The gateway over one replica a model in this process, without Ray: one command, one machine.

    python -m serving.local_stack --config llama-3.1-8b --set gateway.port=8001

For hosts on which Ray cannot start. Door, leases and engines are the stack's own; there
is one replica of each model whatever `replicas` says, no autoscaling, and no supervisor:
`corral status` and `corral stop` do not see it. Ends on SIGTERM or Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, closing, suppress
from pathlib import Path

import uvicorn
import uvloop
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from configs import ConfigError, load
from serving.cli import config_path
from serving.config import FakeConfig, ServeConfig
from serving.engines import build_engine
from serving.engines.base import EngineSpec
from serving.errors import CorralError
from serving.finetuning.runner import LocalRunner
from serving.finetuning.service import Finetuning
from serving.finetuning.settings import Settings
from serving.finetuning.shop import Shop
from serving.gateway.app import Gateway, build_app
from serving.gateway.directory import build_directory
from serving.gateway.metrics import GatewayMetrics
from serving.home import Home
from serving.local_pool import LocalPool
from serving.models import PreparedModel, prepare
from serving.retrieval.service import Retrieval
from serving.runtime import admin_key
from serving.store.accounts import Accounts

__all__ = ["EndOnDisconnect", "main"]


class EndOnDisconnect:
    """Cancels a request when its client goes away, as Serve does; uvicorn only says so."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        messages: asyncio.Queue[Message] = asyncio.Queue()

        async def watch() -> None:
            while True:
                message = await receive()
                messages.put_nowait(message)
                if message["type"] == "http.disconnect":
                    return

        request = asyncio.ensure_future(self._app(scope, messages.get, send))
        watcher = asyncio.ensure_future(watch())
        await asyncio.wait((request, watcher), return_when=asyncio.FIRST_COMPLETED)
        watcher.cancel()
        if request.done():
            request.result()
            return
        request.cancel()
        with suppress(asyncio.CancelledError):
            await request


async def run(config: ServeConfig, home: Home) -> None:
    """Serve until the process is told to end. Raises CorralError when a model cannot start."""
    models = {
        model.name: prepare(model.weights, home, progress=_say)
        for model in config.models
        if not isinstance(model.engine, FakeConfig)
    }
    metrics = GatewayMetrics()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="corral-")))
        pools: dict[str, LocalPool] = {}
        for model in config.models:
            _say(f"{model.name}: loading")
            found = models.get(model.name)
            spec = EngineSpec(model=model.name, weights=found.path if found else None)
            pool = LocalPool(model, build_engine(spec, model.engine), folder)
            pools[model.name] = await stack.enter_async_context(pool)
            _say(f"{model.name}: ready")

        async def own_metrics() -> list[tuple[str, str]]:
            return [("gateway", metrics.exposition())]

        settings = _settings(config, home, models)
        directory = build_directory(
            config.models, pools.__getitem__, settings.adapters(), int(time.time())
        )
        accounts = Accounts.open(
            config.store,
            home.store,
            admin_key(home),
            prices=config.prices,
            alerts=config.alerts,
            oidc=config.oidc,
            registry=metrics.registry,
        )
        stack.enter_context(closing(accounts))
        shop = Shop.over(settings, accounts.store, accounts.blobs)
        finetuning = Finetuning(shop, LocalRunner(shop))
        retrieval = Retrieval(settings, accounts.store, accounts.blobs)
        gateway = Gateway(
            config.gateway, directory, metrics, own_metrics, accounts, finetuning, retrieval
        )
        await _listen(EndOnDisconnect(build_app(gateway)), config)


def _settings(config: ServeConfig, home: Home, models: dict[str, PreparedModel]) -> Settings:
    return Settings(
        config,
        home,
        weights={name: str(model.path) for name, model in models.items()},
        aliases={name: tuple(model.aliases) for name, model in models.items()},
    )


async def _listen(app: ASGIApp, config: ServeConfig) -> None:
    settings = uvicorn.Config(
        app,
        host=config.gateway.host,
        port=config.gateway.port,
        http="httptools",
        lifespan="on",
        access_log=False,
        log_level="warning",
        timeout_keep_alive=3600,
        timeout_graceful_shutdown=max(1, int(config.gateway.grace_s)),
    )
    await uvicorn.Server(settings).serve()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0 after an ordinary end, 1 when the configuration or a model is at fault."""
    parser = argparse.ArgumentParser("python -m serving.local_stack", description=__doc__)
    parser.add_argument("--config", default="local", help="a YAML file, or a name in configs/serve")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE")
    args = parser.parse_args(argv)
    try:
        config = load(ServeConfig, config_path(args.config), args.set)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(config, Home.from_env()))
    except (CorralError, ConfigError) as exc:
        _say(f"error {exc}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
