"""`Pool` on Ray Serve: one streaming handle call is one lease.

Serve's router picks the replica (least busy, adapter-affine) and counts the open
call as an ongoing request, so autoscaling, limits and draining see real load.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, NoReturn

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from serving.engines.base import AdapterRef
from serving.errors import AdapterRefused, CorralError, PoolBusy, PoolUnavailable
from serving.gateway.pool import Capacity

PROBE_DEADLINE_S = 10.0
READY_CACHE_S = 1.0
MAX_CACHED_HANDLES = 4096


class RayLease:
    """An open handle call. The replica ends it when the HTTP request has ended."""

    def __init__(self, address: str, ticket: str, call: Any) -> None:
        self.address = address
        self.ticket = ticket
        self._call = call

    def abandon(self) -> None:
        """See `Lease.abandon`."""
        self._call.cancel()


class RayPool:
    """All replicas of one model deployment."""

    def __init__(self, handle: DeploymentHandle[Any], model: str) -> None:
        self._handle = handle
        self._model = model
        self._node_id = ray.get_runtime_context().get_node_id()
        self._leases = handle.options(method_name="lease", stream=True)
        self._by_adapter: dict[str, DeploymentHandle[Any]] = {}
        self._capacity: Capacity | None = None
        self._capacity_at = 0.0
        self._wait_s = 1.0

    async def lease(self, adapter: AdapterRef | None, deadline_s: float) -> RayLease:
        """See `Pool.lease`."""
        if adapter is None:
            call = self._leases.remote(self._node_id)
        else:
            handle = self._for_adapter(adapter.engine_name)
            call = handle.remote(self._node_id, (adapter.engine_name, str(adapter.path)))
        started = time.monotonic()
        try:
            async with asyncio.timeout(deadline_s):
                address, ticket = await call.__anext__()
        except TimeoutError:
            call.cancel()
            raise PoolBusy(
                f"no replica of {self._model!r} was free within {deadline_s:g} s", self._wait_s
            ) from None
        except asyncio.CancelledError:
            call.cancel()
            raise
        except (RayError, RayServeException) as exc:
            _translate(exc, self._model, self._wait_s)
        self._wait_s += 0.1 * (max(1.0, time.monotonic() - started) - self._wait_s)
        return RayLease(address, ticket, call)

    async def capacity(self) -> Capacity:
        """See `Pool.capacity`; at most one round of probes a second."""
        now = time.monotonic()
        if self._capacity is None or now - self._capacity_at > READY_CACHE_S:
            self._capacity = await self._probe()
            self._capacity_at = time.monotonic()
        return self._capacity

    async def broadcast(self, method: str, *args: Any) -> list[Any]:
        """See `Pool.broadcast`."""
        try:
            response = self._handle.broadcast(method, *args)
            return list(await response.results_async(timeout_s=60.0))
        except (RayError, RayServeException) as exc:
            _translate(exc, self._model, self._wait_s)

    async def _probe(self) -> Capacity:
        try:
            response = self._handle.broadcast("probe", PROBE_DEADLINE_S)
            results = await response.results_async(timeout_s=PROBE_DEADLINE_S + 2.0)
        except (RayError, RayServeException, TimeoutError, CorralError) as exc:
            return Capacity(ready=False, replicas=0, detail=_reason(exc))
        if not results:
            return Capacity(ready=False, replicas=0, detail="no replica is running")
        return Capacity(ready=True, replicas=len(results))

    def _for_adapter(self, engine_name: str) -> DeploymentHandle[Any]:
        handle = self._by_adapter.get(engine_name)
        if handle is None:
            if len(self._by_adapter) >= MAX_CACHED_HANDLES:
                self._by_adapter.clear()
            handle = self._leases.options(multiplexed_model_id=engine_name)
            self._by_adapter[engine_name] = handle
        return handle


def _translate(exc: Exception, model: str, wait_s: float) -> NoReturn:
    """Ray's errors as corral's."""
    if isinstance(exc, BackPressureError):
        raise PoolBusy(f"every replica of {model!r} is at its limit", wait_s) from exc
    cause = exc.cause if isinstance(exc, RayTaskError) else exc
    if isinstance(cause, AdapterRefused):
        raise AdapterRefused(str(cause)) from exc
    if isinstance(cause, CorralError):
        raise cause from exc
    if isinstance(exc, DeploymentUnavailableError | RayActorError):
        raise PoolUnavailable(f"no replica of {model!r} is alive") from exc
    raise PoolUnavailable(f"the replica of {model!r} failed: {_reason(exc)}") from exc


def _reason(exc: Exception) -> str:
    """The last line of a Ray error, which is the cause; the rest is actor traces."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[-1] if lines else type(exc).__name__
