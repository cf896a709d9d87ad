"""`Pool` on Ray Serve: one streaming handle call is one lease.

Serve's router picks the replica (least busy, adapter-affine) and counts the open
call as an ongoing request, so autoscaling, limits and draining see real load. A lease
whose request has ended is kept for a moment and given to the next request.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextvars import Context
from typing import Any, NoReturn

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from serving.engines.base import AdapterRef
from serving.errors import AdapterRefused, CorralError, PoolBusy, PoolUnavailable
from serving.gateway.pool import Capacity

KEEP_S = 0.25
"""How long an idle lease may be given out again; the replica keeps it a little longer."""
MAX_AGE_S = 5.0
"""After this a lease is not given out again, so that draining and new replicas get their turn."""
PROBE_DEADLINE_S = 10.0
BROADCAST_TIMEOUT_S = 60.0
READY_CACHE_S = 1.0
MAX_CACHED_HANDLES = 4096


class RayLease:
    """An open handle call. One request at a time runs on it."""

    def __init__(self, pool: RayPool, key: str, address: str, ticket: str, call: Any) -> None:
        self.address = address
        self.ticket = ticket
        self.key = key
        self.granted_at = time.monotonic()
        self.idle_since = self.granted_at
        self._pool = pool
        self._call = call

    def release(self) -> None:
        """See `Lease.release`."""
        self._pool.give_back(self)

    def abandon(self) -> None:
        """See `Lease.abandon`. The idle leases beside it may be as stale: they go too."""
        self._call.cancel()
        self._pool.forget_idle(self.key)


class RayPool:
    """All replicas of one model deployment."""

    def __init__(
        self, handle: DeploymentHandle[Any], model: str, *, scales_to_zero: bool = False
    ) -> None:
        self._handle = handle
        self._scales_to_zero = scales_to_zero
        self._model = model
        self._node_id = ray.get_runtime_context().get_node_id()
        self._leases = handle.options(method_name="lease", stream=True)
        self._by_adapter: dict[str, DeploymentHandle[Any]] = {}
        self._idle: dict[str, deque[RayLease]] = {}
        self._waiting: dict[str, deque[asyncio.Future[RayLease]]] = {}
        self._capacity: Capacity | None = None
        self._capacity_at = 0.0
        self._wait_s = 1.0

    async def lease(self, adapter: AdapterRef | None, deadline_s: float) -> RayLease:
        """See `Pool.lease`: an idle lease, or a new one from Serve, or one freed meanwhile."""
        key = adapter.engine_name if adapter else ""
        kept = self._take_idle(key)
        if kept is not None:
            return kept
        freed: asyncio.Future[RayLease] = asyncio.get_running_loop().create_future()
        # In a context of its own: Serve ends the calls of a request with it, and a lease must
        # live on for a moment, to be given out again or to be asked what was used.
        granted = asyncio.create_task(self._grant(key, adapter), context=Context())
        queue = self._waiting.setdefault(key, deque())
        queue.append(freed)
        started = time.monotonic()
        chosen: asyncio.Future[RayLease] | None = None
        try:
            await asyncio.wait(
                (granted, freed), timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED
            )
            self._wait_s += 0.1 * (max(1.0, time.monotonic() - started) - self._wait_s)
            chosen = next((future for future in (freed, granted) if future.done()), None)
            if chosen is None:
                raise PoolBusy(
                    f"no replica of {self._model!r} was free within {deadline_s:g} s", self._wait_s
                )
            return chosen.result()
        finally:
            queue.remove(freed)
            if not queue:
                self._waiting.pop(key, None)
            for future in (granted, freed):
                if future is not chosen:
                    _discard(future)

    def give_back(self, lease: RayLease) -> None:
        """A request has ended: its lease goes to who waits for one, or is kept for a moment."""
        now = time.monotonic()
        if now - lease.granted_at > MAX_AGE_S:
            lease.abandon()
            return
        for waiter in self._waiting.get(lease.key, ()):
            if not waiter.done():
                waiter.set_result(lease)
                return
        if self._waiting:
            lease.abandon()  # others wait for the slot that it holds
            return
        lease.idle_since = now
        self._idle.setdefault(lease.key, deque()).append(lease)

    def forget_idle(self, key: str) -> None:
        """Give none of these out again; the replicas end them."""
        self._idle.pop(key, None)

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
            return list(await response.results_async(timeout_s=BROADCAST_TIMEOUT_S))
        except TimeoutError:
            raise PoolUnavailable(
                f"not every replica of {self._model!r} answered within {BROADCAST_TIMEOUT_S:g} s"
            ) from None
        except (RayError, RayServeException) as exc:
            _translate(exc, self._model, self._wait_s)

    def _take_idle(self, key: str) -> RayLease | None:
        """The idle lease used last, which is the one with the longest life ahead."""
        idle = self._idle.get(key)
        if not idle:
            return None
        lease = idle.pop()
        now = time.monotonic()
        if now - lease.idle_since < KEEP_S and now - lease.granted_at < MAX_AGE_S:
            return lease
        del self._idle[key]  # those below it are older still; the replica ends them
        return None

    async def _grant(self, key: str, adapter: AdapterRef | None) -> RayLease:
        """A new lease from Serve. Cancelling it cancels the call."""
        if adapter is None:
            call = self._leases.remote(self._node_id)
        else:
            path = str(adapter.path)
            call = self._for_adapter(key).remote(self._node_id, (adapter.engine_name, path))
        try:
            address, ticket = await call.__anext__()
        except asyncio.CancelledError:
            call.cancel()
            raise
        except (RayError, RayServeException) as exc:
            _translate(exc, self._model, self._wait_s)
        return RayLease(self, key, address, ticket, call)

    async def _probe(self) -> Capacity:
        try:
            response = self._handle.broadcast("probe", PROBE_DEADLINE_S)
            results = await response.results_async(timeout_s=PROBE_DEADLINE_S + 2.0)
        except (RayError, RayServeException, TimeoutError, CorralError) as exc:
            return Capacity(ready=False, replicas=0, detail=_reason(exc))
        if not results and self._scales_to_zero:
            return Capacity(ready=True, replicas=0, detail="scaled to zero")
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


def _discard(future: asyncio.Future[RayLease]) -> None:
    """Cancel what is pending; give back a lease that came too late; forget an error."""
    if not future.cancel() and not future.cancelled() and future.exception() is None:
        future.result().release()


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
