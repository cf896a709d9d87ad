"""Calls of the stack's own models from threads: by a lease, as a client's request goes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine, Sequence
from typing import Any

import msgspec

from rag.errors import EmbedderUnavailable
from serving.errors import PoolUnavailable
from serving.gateway.directory import Directory, Target
from serving.gateway.errors import ApiError, from_engine
from serving.gateway.exchange import CutOff, Exchanger, Message
from serving.store.secret import new_id

_LOOK_S = 0.25


class Interrupted(EmbedderUnavailable):
    """The gateway ends; what was under way is done by the next one."""


class Replicas:
    """The gateway's pools, for whoever may block. The event loop's thread may not."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        directory: Directory,
        exchanger: Exchanger,
        timeout_s: float,
    ) -> None:
        self._loop, self._directory, self._exchanger = loop, directory, exchanger
        self._timeout_s = timeout_s
        self._stop = threading.Event()

    def post(self, model: str, path: str, bodies: Sequence[Any]) -> list[dict[str, Any]]:
        """The answers to several requests, made at once.

        Raises PoolBusy, PoolUnavailable, EmbedderUnavailable, Interrupted.
        """
        return self._wait(self._post_all(model, path, bodies))

    def stop(self) -> None:
        """Calls under way, and later ones, raise Interrupted."""
        self._stop.set()

    def _wait(self, work: Coroutine[Any, Any, list[dict[str, Any]]]) -> list[dict[str, Any]]:
        if self._stop.is_set() or self._loop.is_closed():
            work.close()
            raise Interrupted("the gateway ends")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        while not concurrent.futures.wait([future], _LOOK_S).done:
            if self._stop.is_set():
                future.cancel()
                raise Interrupted("the gateway ends")
        try:
            return future.result()
        except TimeoutError as exc:
            raise PoolUnavailable("the replicas do not answer in time") from exc
        except concurrent.futures.CancelledError as exc:
            raise Interrupted("the gateway ends") from exc

    async def _post_all(self, model: str, path: str, bodies: Sequence[Any]) -> list[dict[str, Any]]:
        async with asyncio.timeout(self._timeout_s):
            tasks = [asyncio.ensure_future(self._post(model, path, body)) for body in bodies]
            try:
                return await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()

    async def _post(self, model: str, path: str, body: Any) -> dict[str, Any]:
        target = Target(self._directory.models[model])
        message = Message(path, new_id("retrieval"), msgspec.json.encode(body), stream=False)
        try:
            exchange = await self._exchanger.start(message, target)
        except CutOff as exc:
            exc.lease.abandon()
            raise exc.cause from None
        status, answer = exchange.head.status, await self._exchanger.rest(exchange)
        if status >= 400:
            raise _refusal(model, from_engine(status, answer))
        found = msgspec.json.decode(answer)
        assert isinstance(found, dict)
        return found


def _refusal(model: str, error: ApiError) -> Exception:
    """What passes is the pool's fault, what does not is the request's."""
    said = f"the model {model!r} answers {error.status}: {error.message[:300]}"
    if error.status >= 500 or error.status in (408, 429):
        return PoolUnavailable(said)
    return EmbedderUnavailable(said)
