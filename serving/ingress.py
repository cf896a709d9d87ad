"""The gateway as a Serve deployment: handles become pools, pools become an ASGI app."""

from __future__ import annotations

import time
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from serving.config import ServeConfig
from serving.finetuning.ray_runner import RayRunner
from serving.finetuning.service import Finetuning
from serving.finetuning.settings import Settings
from serving.finetuning.shop import Shop
from serving.gateway.app import Gateway, build_app
from serving.gateway.directory import build_directory
from serving.gateway.metrics import GatewayMetrics
from serving.loopback import confine
from serving.ray_pool import RayPool
from serving.retrieval.service import Retrieval
from serving.runtime import Runtime
from serving.store.accounts import Accounts

NAME = "gateway"
APPLICATION = "corral"


@serve.ingress()
class GatewayIngress:
    """One gateway process."""

    def __init__(
        self, config: ServeConfig, runtime: Runtime, **handles: DeploymentHandle[Any]
    ) -> None:
        confine()
        self._config = config
        self._runtime = runtime
        self._pools = {
            model.name: RayPool(
                handles[handle_key(index)], model.name, scales_to_zero=model.replicas.min == 0
            )
            for index, model in enumerate(config.models)
        }
        self._metrics = GatewayMetrics()
        self._accounts = Accounts.open(
            config.store,
            runtime.home.store,
            runtime.admin_key,
            prices=config.prices,
            alerts=config.alerts,
            oidc=config.oidc,
            registry=self._metrics.registry,
        )

    def __serve_build_asgi_app__(self) -> ASGIApp:  # Serve's name for it
        """Called by Serve after the constructor."""
        runtime = self._runtime
        settings = Settings(self._config, runtime.home, runtime.weights, runtime.aliases)
        directory = build_directory(
            self._config.models, self._pools.__getitem__, settings.adapters(), int(time.time())
        )
        gateway = Gateway(
            config=self._config.gateway,
            directory=directory,
            metrics=self._metrics,
            peer_metrics=self._peer_metrics,
            accounts=self._accounts,
            finetuning=Finetuning(
                Shop.over(settings, self._accounts.store, self._accounts.blobs), RayRunner(settings)
            ),
            retrieval=Retrieval(settings, self._accounts.store, self._accounts.blobs),
        )
        return build_app(gateway)

    def __del__(self) -> None:
        """Serve's word that the replica ends: what waits is written."""
        accounts = getattr(self, "_accounts", None)
        if accounts is not None:
            accounts.close()

    async def exposition(self) -> tuple[str, str]:
        """This process's replica id and its own metrics."""
        return serve.get_replica_context().replica_id.unique_id, self._metrics.exposition()

    async def _peer_metrics(self) -> list[tuple[str, str]]:
        handle = serve.get_deployment_handle(NAME, APPLICATION)
        return list(await handle.broadcast("exposition").results_async(timeout_s=10.0))


def handle_key(index: int) -> str:
    """Keyword under which the gateway gets the handle of the model at `index`."""
    return f"model_{index}"
