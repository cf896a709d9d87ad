"""The process that owns Ray and Serve: `python -m serving.stack`, started by `corral serve`.

Reads its task as JSON on stdin, deploys the graph, and drains it on SIGTERM. It dies
with its parent: the kernel sends it SIGTERM when `corral serve` is killed.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from serving.config import ServeConfig
from serving.finetuning.settings import Settings
from serving.home import Home
from serving.progress import Progress
from serving.runtime import Runtime

STACK = "stack"
"""Name under which this process reports progress."""
INTERRUPT_S = 15.0
"""Time for fine-tuning jobs to write their checkpoints when the stack stops."""
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Run until SIGTERM. Exit status 0 after a clean stop."""
    task = json.load(sys.stdin)
    config = ServeConfig.model_validate(task["config"])
    runtime = Runtime(
        home=Home(Path(task["home"])),
        directory=Path(task["directory"]),
        admin_key=task["admin_key"],
        weights=task["weights"],
        aliases={name: tuple(aliases) for name, aliases in task["aliases"].items()},
    )
    stop = threading.Event()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != task["parent"]:
        return 1
    progress = Progress(runtime.directory, STACK)
    try:
        _start(config, runtime, stop)
    except Exception as exc:
        progress.failed(_cause(exc))
        logging.getLogger(__name__).exception("the stack did not start")
        _stop(config, runtime)
        return 1
    if not stop.is_set():
        progress.phase("ready")
    stop.wait()
    _stop(config, runtime)
    return 0


def _start(config: ServeConfig, runtime: Runtime, stop: threading.Event) -> None:
    """Start (or join) Ray and deploy. Raises whatever Ray or Serve raise."""
    from ray import serve
    from ray.serve.config import HTTPOptions, ProxyLocation
    from ray.serve.schema import LoggingConfig

    from serving.app import build
    from serving.ingress import APPLICATION

    _start_ray(config, runtime)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    logs = LoggingConfig(
        log_level="WARNING",
        logs_dir=str(runtime.home.logs / "serve"),
        enable_access_log=False,
    )
    local = config.cluster.address is None
    serve.start(
        proxy_location=ProxyLocation.HeadOnly if local else ProxyLocation.EveryNode,
        http_options=HTTPOptions(
            host=config.gateway.host, port=config.gateway.port, keep_alive_timeout_s=3600
        ),
        logging_config=logs,
    )
    deploy = threading.Thread(
        target=_deploy, args=(build(config, runtime), APPLICATION, logs), daemon=True
    )
    failures: list[BaseException] = []
    deploy.run = _guarded(deploy.run, failures)  # type: ignore[method-assign]
    deploy.start()
    while deploy.is_alive() and not stop.wait(0.1):
        pass
    if failures:
        raise failures[0]


def _deploy(application: Any, name: str, logs: Any) -> None:
    from ray import serve

    serve.run(application, name=name, route_prefix="/", logging_config=logs)


def _guarded(run: Any, failures: list[BaseException]) -> Any:
    def guarded() -> None:
        try:
            run()
        except BaseException as exc:
            failures.append(exc)

    return guarded


def _cause(exc: BaseException) -> str:
    """One line: the last of the message, where Ray and Serve put the reason."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return f"{type(exc).__name__}: {lines[-1] if lines else 'no message'}"


def _start_ray(config: ServeConfig, runtime: Runtime) -> None:
    """Join the configured cluster, or start a private one."""
    import ray

    from serving import private_cluster

    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if config.cluster.address is not None:
        ray.init(address=config.cluster.address, **quiet)
        return
    options = private_cluster.options(
        str(runtime.directory / "ray"), config.cluster.object_store_mib
    )
    with private_cluster.lean():
        ray.init(**options, **quiet)


def _stop(config: ServeConfig, runtime: Runtime) -> None:
    """Drain: no new requests, running ones finish; then end Serve and Ray.

    Fine-tuning jobs end with a private cluster, each with a checkpoint; in one that was joined
    they go on, and the next start finds them.
    """
    import ray
    from ray import serve

    from serving.finetuning.ray_runner import interrupt_all
    from serving.ingress import APPLICATION

    if not ray.is_initialized():
        return
    try:
        serve.delete(APPLICATION)
    except Exception:
        logging.getLogger(__name__).exception("draining failed")
    if config.cluster.address is None:
        interrupt_all(Settings(config, runtime.home), INTERRUPT_S)
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    sys.exit(main())
