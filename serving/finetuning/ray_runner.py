"""`JobRunner` on Ray: an attempt is a detached actor, named after its job.

An actor that declares more than the cluster has free waits, and a cluster that can grow
grows for it. Detached, it outlives the gateway that asked for it; a gateway that comes later
finds it by its name.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError

from serving.finetuning.settings import Settings
from serving.finetuning.shop import Shop
from serving.finetuning.watch import work
from serving.runtime import runtime_directory


class Attempt:
    """The actor. Its thread starts with it, so that nobody's call has to stay open."""

    def __init__(self, settings: Settings, job_id: str) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(settings, job_id), daemon=True)
        self._thread.start()

    def _run(self, settings: Settings, job_id: str) -> None:
        shop = Shop.open(settings)
        try:
            work(shop, job_id, self._stop)
        finally:
            shop.store.close()

    def interrupt(self) -> None:
        """Have the trainer write a checkpoint and end; returns when it has."""
        self._stop.set()
        self._thread.join()


class RayRunner:
    """Attempts as actors, in a namespace of this home."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._namespace = namespace(settings)

    async def start(self, job_id: str) -> None:
        """See `JobRunner.start`."""
        await asyncio.to_thread(self._start, job_id)

    async def held(self) -> set[str]:
        """See `JobRunner.held`: every actor that is there or is to be."""
        return await asyncio.to_thread(_held, self._namespace)

    async def drop(self, job_id: str) -> None:
        """See `JobRunner.drop`. The trainer is told by the kernel."""
        await asyncio.to_thread(_kill, self._namespace, job_id)

    async def close(self) -> None:
        """See `JobRunner.close`: actors do not end with a gateway."""

    def _start(self, job_id: str) -> None:
        config = self._settings.config.finetuning
        with suppress(ValueError):  # Ray's word for "another gateway was quicker"
            ray.remote(Attempt).options(
                name=job_id,
                namespace=self._namespace,
                lifetime="detached",
                num_cpus=config.num_cpus,
                num_gpus=config.num_gpus,
                memory=int(config.memory_gib * 2**30) or None,
                max_restarts=0,
            ).remote(self._settings, job_id)


def namespace(settings: Settings) -> str:
    """Of the actors of one home."""
    return f"finetuning-{runtime_directory(settings.home).name}"


def interrupt_all(settings: Settings, timeout_s: float) -> None:
    """Have every trainer write a checkpoint, as far as the time allows; then end the actors."""
    names, deadline = _held(namespace(settings)), time.monotonic() + timeout_s
    calls: list[Any] = []
    for name in names:
        with suppress(ValueError):
            calls.append(ray.get_actor(name, namespace(settings)).interrupt.remote())
    with suppress(RayError):
        ray.wait(calls, num_returns=len(calls), timeout=max(0.0, deadline - time.monotonic()))
    for name in names:
        _kill(namespace(settings), name)


def _held(namespace: str) -> set[str]:
    named = ray.util.list_named_actors(all_namespaces=True)
    return {actor["name"] for actor in named if actor["namespace"] == namespace}


def _kill(namespace: str, job_id: str) -> None:
    with suppress(ValueError):
        ray.kill(ray.get_actor(job_id, namespace))
