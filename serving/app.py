"""The whole Serve graph on one page: a gateway, and one deployment per model."""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig

from serving.config import ModelConfig, ServeConfig
from serving.ingress import NAME, GatewayIngress, handle_key
from serving.replica import Replica
from serving.runtime import Runtime


def build(config: ServeConfig, runtime: Runtime) -> Application:
    """Gateway → one pool of replicas per model. Pass the result to `serve.run`."""
    models = {
        handle_key(index): _model(model, config, runtime)
        for index, model in enumerate(config.models)
    }
    gateway = serve.deployment(GatewayIngress).options(
        name=NAME,
        num_replicas=config.gateway.replicas,
        max_ongoing_requests=config.gateway.max_ongoing_requests,
        max_queued_requests=config.gateway.max_ongoing_requests,
        graceful_shutdown_timeout_s=config.gateway.grace_s + 5.0,
        graceful_shutdown_wait_loop_s=0.2,
        health_check_period_s=5.0,
        health_check_timeout_s=10.0,
        ray_actor_options={"num_cpus": 0.1},
    )
    return gateway.bind(config, runtime, **models)


def _model(model: ModelConfig, config: ServeConfig, runtime: Runtime) -> Application:
    replicas = model.replicas
    scaling: dict[str, Any]
    if replicas.min == replicas.max:
        scaling = {"num_replicas": replicas.max}
    else:
        scaling = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=replicas.min,
                max_replicas=replicas.max,
                target_ongoing_requests=replicas.target_ongoing_requests,
                upscale_delay_s=replicas.upscale_delay_s,
                downscale_delay_s=replicas.downscale_delay_s,
            )
        }
    deployment = serve.deployment(Replica).options(
        name=f"model-{model.name.replace('/', '--')}",
        max_ongoing_requests=replicas.max_ongoing_requests,
        max_queued_requests=replicas.max_queued_requests,
        graceful_shutdown_timeout_s=config.gateway.grace_s,
        graceful_shutdown_wait_loop_s=0.2,
        health_check_period_s=replicas.health_period_s,
        health_check_timeout_s=replicas.health_timeout_s,
        ray_actor_options={"num_cpus": replicas.num_cpus, "num_gpus": replicas.num_gpus},
        **scaling,
    )
    return deployment.bind(
        model,
        runtime.weights.get(model.name),
        str(runtime.directory),
        listen_tcp=config.cluster.address is not None,
    )
