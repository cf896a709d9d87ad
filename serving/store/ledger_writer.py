"""The one thread of a gateway that writes the ledger: whatever waits goes into one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from serving.store.errors import StoreError, StoreUnavailable
from serving.store.ledger import Item, Ledger
from serving.store.ledger_types import Granted, Outcome, Refused, Release, Reserve, Settle

MAX_BATCH = 256
MAX_PENDING = 20_000
"""Settlements that may wait for a database that does not answer; no reservation is taken then."""
RETRY_S = 0.5
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Waiting:
    """One item, and who awaits its outcome."""

    item: Item
    loop: asyncio.AbstractEventLoop | None = None
    future: asyncio.Future[Outcome] | None = None


class LedgerWriter:
    """Start it with the gateway, stop it after the last request: `stop` writes what waits.

    decision = await writer.reserve(Reserve(payer, estimate))
    writer.settle(Settle(payer, used, path, reservation=decision.reservation))
    """

    def __init__(self, ledger: Ledger, lease_s: float, *, max_pending: int = MAX_PENDING) -> None:
        self._ledger = ledger
        self._lease_s = lease_s
        self._max_pending = max_pending
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._next_renewal_s = 0.0
        self._stopping = False
        self._unwritten = 0
        self.lost = 0
        """Settlements given up; 0 unless the database stayed away. Each is in the log."""
        self._thread = threading.Thread(target=self._run, name="corral-ledger", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    async def reserve(self, ask: Reserve) -> Granted | Refused:
        """Raises StoreUnavailable when the ledger cannot be asked; nothing is held then."""
        if self._stopping or not self._thread.is_alive():
            raise StoreUnavailable("the ledger is closed: the gateway is stopping")
        if self.pending >= self._max_pending:
            raise StoreUnavailable("the ledger lags behind; is the database up? `corral doctor`")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        self._queue.put(_Waiting(ask, loop, future))
        outcome = await future  # given up meanwhile: `_deliver` releases what was granted
        assert isinstance(outcome, Granted | Refused)
        return outcome

    def settle(self, done: Settle) -> None:
        """Book what was used, soon. Never blocks and never raises."""
        self._post(done)

    def release(self, reservation: str | None) -> None:
        """Give back what was reserved for a request that never reached an engine."""
        if reservation is not None:
            self._post(Release(reservation))

    @property
    def pending(self) -> int:
        """Items that are not written yet."""
        return self._queue.qsize() + self._unwritten

    def stop(self, timeout_s: float = 10.0) -> None:
        """Write what waits and end. What cannot be written in time is logged and lost."""
        self._stopping = True
        self._queue.put(None)
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _post(self, item: Settle | Release) -> None:
        if self.pending >= 2 * self._max_pending:
            self.lost += 1
            _log.error("the ledger is full, not booked: %s", item)
            return
        self._queue.put(_Waiting(item))

    def _run(self) -> None:
        ending = False
        while not ending:
            batch = self._take()
            ending = batch[-1:] == [None]
            self._renew()
            waiting = [item for item in batch if item is not None]
            if waiting:
                self._unwritten = len(waiting)
                self._write(waiting)
                self._unwritten = 0
        with contextlib.suppress(StoreError):
            self._ledger.leave()

    def _take(self) -> list[_Waiting | None]:
        """What waits now, `None` last if the end was asked for; waits until the next renewal."""
        batch: list[_Waiting | None] = []
        with contextlib.suppress(queue.Empty):
            batch.append(self._queue.get(timeout=max(0.01, self._next_renewal_s - _now_s())))
            while batch[-1] is not None and len(batch) < MAX_BATCH:
                batch.append(self._queue.get_nowait())
        return batch

    def _renew(self) -> None:
        if _now_s() < self._next_renewal_s:
            return
        try:
            self._ledger.renew(self._lease_s)
            released = self._ledger.expire()
            if released:
                _log.warning("released %d reservations of dead gateways", released)
            self._next_renewal_s = _now_s() + self._lease_s / 3
        except StoreError as exc:
            _log.error("the gateway's lease is not renewed: %s", exc)
            self._next_renewal_s = _now_s() + RETRY_S

    def _write(self, waiting: list[_Waiting], *, again: bool = False) -> None:
        """One transaction; when that fails, reservations are refused and the rest tried again."""
        while waiting:
            try:
                outcomes = self._ledger.apply([w.item for w in waiting], again=again)
            except StoreUnavailable as exc:
                self._fail([w for w in waiting if w.future is not None], exc)
                # A reservation whose commit is in doubt is given back; settling goes on.
                waiting = [_undone(w) for w in waiting]
                again = True
                if self._stopping and not self._patience():
                    self._give_up(waiting, exc)
                    return
                time.sleep(RETRY_S)
            except Exception as exc:
                _log.exception("the ledger refuses a batch of %d", len(waiting))
                if len(waiting) == 1:
                    error = StoreUnavailable(f"the ledger failed: {exc}")
                    self._fail([w for w in waiting if w.future is not None], error)
                    self._give_up(waiting, error)
                    return
                for one in waiting:  # one bad item must not take the others along
                    self._write([one], again=again)
                return
            else:
                self._deliver(waiting, outcomes)
                return

    _tries_at_end = 0

    def _patience(self) -> bool:
        self._tries_at_end += 1
        return self._tries_at_end < 5

    def _give_up(self, waiting: Sequence[_Waiting], exc: Exception) -> None:
        for one in waiting:
            if isinstance(one.item, Settle):
                self.lost += 1
                _log.error("not booked, %s: %s", exc, one.item)

    def _deliver(self, waiting: Sequence[_Waiting], outcomes: Sequence[Outcome]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Waiting, Outcome]]] = {}
        for one, outcome in zip(waiting, outcomes, strict=True):
            if one.loop is not None:
                by_loop.setdefault(one.loop, []).append((one, outcome))
        for loop, answers in by_loop.items():
            try:
                loop.call_soon_threadsafe(self._set, answers)
            except RuntimeError:  # the loop is closed: nobody will settle these
                self._release_all(answers)

    def _set(self, answers: list[tuple[_Waiting, Outcome]]) -> None:
        left = []
        for one, outcome in answers:
            assert one.future is not None
            if one.future.done():  # its request was cancelled while it waited
                left.append((one, outcome))
            else:
                one.future.set_result(outcome)
        self._release_all(left)

    def _release_all(self, answers: Sequence[tuple[_Waiting, Outcome]]) -> None:
        for _, outcome in answers:
            if isinstance(outcome, Granted):
                self.release(outcome.reservation)

    def _fail(self, waiting: Sequence[_Waiting], exc: StoreError) -> None:
        for one in waiting:
            assert one.loop is not None and one.future is not None  # noqa: PT018
            with contextlib.suppress(RuntimeError):
                one.loop.call_soon_threadsafe(_set_exception, one.future, exc)


def _undone(one: _Waiting) -> _Waiting:
    return _Waiting(Release(one.item.id)) if isinstance(one.item, Reserve) else one


def _set_exception(future: asyncio.Future[Outcome], exc: StoreError) -> None:
    if not future.done():
        future.set_exception(exc)


def _now_s() -> float:
    return time.monotonic()
