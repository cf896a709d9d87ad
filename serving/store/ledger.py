"""The ledger: reserve before, settle after, each batch one transaction.

A batch reads all rows it needs under locks, decides in memory and writes once. Usage is
booked for key, tenant and model whether or not they have limits, so that a limit set in
the middle of a month counts what was spent before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from serving.store import tables
from serving.store.alerts import AlertBook, AlertMetrics
from serving.store.database import Store
from serving.store.ledger_batch import Batch, Held, spent_windows
from serving.store.ledger_checks import Counters
from serving.store.ledger_rows import Rows, among, ids_parameter
from serving.store.ledger_types import Outcome, Release, Reserve, Settle
from serving.store.limits import LimitBook
from serving.store.prices import PriceBook

Item = Reserve | Settle | Release


@dataclass
class _Found:
    """What the database says of the reservations that a batch names."""

    held: dict[str, Held] = field(default_factory=dict)
    booked: set[str] = field(default_factory=set)
    granted: set[str] = field(default_factory=set)


class Ledger:
    """One gateway's access to the ledger. For one thread."""

    def __init__(
        self,
        store: Store,
        prices: PriceBook,
        limits: LimitBook,
        gateway_id: str,
        thresholds: Sequence[int] = (),
        metrics: AlertMetrics | None = None,
    ) -> None:
        self._store = store
        self._prices = prices
        self._limits = limits
        self.gateway_id = gateway_id
        self._alerts = AlertBook(thresholds, metrics)
        self._windows = Rows(tables.windows, store.is_sqlite)
        self._meters = Rows(tables.meters, store.is_sqlite)
        one = among(tables.reservations.c.id, store.is_sqlite)
        held = select(tables.reservations).where(one)
        self._select_held = held.order_by(tables.reservations.c.id).with_for_update()
        self._delete_held = delete(tables.reservations).where(one)
        usage_id = tables.usage.c.id
        self._select_booked = select(usage_id).where(among(usage_id, store.is_sqlite))

    def apply(self, items: Sequence[Item], *, again: bool = False) -> list[Outcome]:
        """Do all of `items` in their order, in one transaction, or none of them.

        `again`: the batch may have been committed before; what was done is not repeated.
        Settling and releasing are idempotent by reservation. Raises StoreUnavailable.
        """
        limits = self._limits.refresh()
        batch = Batch(Counters(self._store.now_us(), limits), self._prices)
        with self._store.write() as connection:
            found = self._find(connection, items, again)
            self._lock(connection, batch, items, found)
            outcomes = [self._one(batch, item, found) for item in items]
            self._write(connection, batch)
        self._windows.committed(batch.counters.windows)
        self._meters.committed(batch.counters.meters)
        self._alerts.committed()
        return outcomes

    def _find(self, connection: Connection, items: Sequence[Item], again: bool) -> _Found:
        found = _Found()
        wanted = sorted({id for item in items if (id := _reservation(item)) is not None})
        if again:
            wanted += [item.id for item in items if isinstance(item, Reserve)]
        if wanted:
            rows = connection.execute(self._select_held, self._ids(wanted))
            found.held = {row.id: Held.of(row) for row in rows}
        if again:
            found.granted = {item.id for item in items if isinstance(item, Reserve)} & set(
                found.held
            )
        doubtful = [
            item.reservation or item.id
            for item in items
            if isinstance(item, Settle) and (again or item.reservation not in {None, *found.held})
        ]
        if doubtful:
            rows = connection.execute(self._select_booked, self._ids(doubtful))
            found.booked = {row.id for row in rows}
        return found

    def _lock(
        self, connection: Connection, batch: Batch, items: Sequence[Item], found: _Found
    ) -> None:
        windows: set[str] = set()
        meters: set[str] = set()
        for item in items:
            if isinstance(item, Reserve):
                windows.update(batch.windows_of(item))
                meters.update(batch.meters_of(item))
                continue
            held = found.held.get(item.reservation or "")
            if held is not None:
                windows.update(held.holds.windows)
                meters.update(meter[0] for meter in held.holds.meters)
            if isinstance(item, Settle):
                windows.update(
                    spent_windows(item.payer, held.at_us if held else batch.counters.now_us)
                )
        batch.counters.windows = self._windows.lock(connection, windows)
        batch.counters.meters = self._meters.lock(connection, meters)

    def _one(self, batch: Batch, item: Item, found: _Found) -> Outcome:
        match item:
            case Reserve():
                if item.id in found.granted:
                    return batch.granted(item)
                return batch.reserve(item, self.gateway_id)
            case Release():
                held = found.held.pop(item.reservation, None)
                if held is not None:
                    batch.release(held)
            case Settle():
                id = item.reservation or item.id
                if id not in found.booked:
                    found.booked.add(id)
                    batch.settle(item, found.held.pop(id, None))
        return None

    def _write(self, connection: Connection, batch: Batch) -> None:
        self._windows.write(connection, batch.counters.windows.values())
        self._meters.write(connection, batch.counters.meters.values())
        if batch.reservations:
            connection.execute(insert(tables.reservations), batch.reservations)
        if batch.gone:
            connection.execute(self._delete_held, self._ids(batch.gone))
        if batch.usage:
            connection.execute(insert(tables.usage), batch.usage)
            self._alerts.note(connection, self._store, batch.counters)

    def renew(self, lease_s: float) -> None:
        """Say that this gateway lives for another `lease_s`. Raises StoreUnavailable."""
        self._store.set_clock()
        upsert = (sqlite if self._store.is_sqlite else postgresql).insert(tables.gateways)
        until = self._store.now_us() + int(lease_s * 1e6)
        statement = upsert.values(id=self.gateway_id, lease_until_us=until)
        with self._store.write() as connection:
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["id"], set_={"lease_until_us": until}
                )
            )

    def leave(self) -> None:
        """Say that this gateway ends: what it still holds may be released at once."""
        gateways = tables.gateways
        with self._store.write() as connection:
            connection.execute(delete(gateways).where(gateways.c.id == self.gateway_id))

    def expire(self) -> int:
        """Release what dead gateways hold; the number of reservations. They stay as `expired`."""
        gateways, reservations = tables.gateways, tables.reservations
        now = self._store.now_us()
        alive = select(gateways.c.id).where(gateways.c.lease_until_us >= now)
        orphans = (
            select(reservations)
            .where(reservations.c.state == "held", reservations.c.gateway_id.not_in(alive))
            .order_by(reservations.c.id)
        )
        with self._store.read() as connection:
            if connection.execute(orphans.limit(1)).first() is None:
                return 0
        with self._store.write() as connection:
            rows = connection.execute(orphans.limit(10_000).with_for_update()).all()
            lost = [Held.of(row) for row in rows]
            batch = Batch(Counters(now, {}), self._prices)
            releases = [Release(held.id) for held in lost]
            self._lock(connection, batch, releases, _Found({held.id: held for held in lost}))
            for held in lost:
                batch.release(held)
            self._windows.write(connection, batch.counters.windows.values())
            self._meters.write(connection, batch.counters.meters.values())
            gone = reservations.c.id.in_([held.id for held in lost])
            connection.execute(update(reservations).where(gone).values(state="expired"))
            connection.execute(delete(gateways).where(gateways.c.lease_until_us < now))
        return len(lost)

    def _ids(self, ids: Sequence[str]) -> dict[str, object]:
        return ids_parameter(ids, self._store.is_sqlite)


def _reservation(item: Item) -> str | None:
    return None if isinstance(item, Reserve) else item.reservation
