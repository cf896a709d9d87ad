"""Rows of counters inside one transaction: locked in one order, changed in memory, written once.

SQLite's one writer holds the whole database. PostgreSQL locks rows, always windows
before meters and each by id, so that no two transactions wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, Text, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import ColumnElement

MAX_KNOWN = 200_000


class Holds(msgspec.Struct, array_like=True):
    """What a reservation holds: windows by id, meters as (scope, parallel, tokens/min or 0)."""

    windows: list[str]
    meters: list[tuple[str, int, int]]


def among(column: ColumnElement[Any], is_sqlite: bool) -> ColumnElement[bool]:
    """`column` is one of the parameter `ids`, made by `ids_parameter`; any number of them."""
    if is_sqlite:
        each = func.json_each(bindparam("ids", type_=Text)).table_valued("value")
        return column.in_(select(each.c.value))
    ids = bindparam("ids", type_=postgresql.ARRAY(Text))
    return column == func.any(ids)


def ids_parameter(ids: Iterable[str], is_sqlite: bool) -> dict[str, Any]:
    """The parameter of a statement made with `among`."""
    listed = list(ids)
    return {"ids": msgspec.json.encode(listed).decode() if is_sqlite else listed}


class Rows:
    """One table of counters (`id` and whole numbers) as one process uses it."""

    def __init__(self, table: Table, is_sqlite: bool) -> None:
        self.names = [column.name for column in table.c if column.name != "id"]
        self._is_sqlite = is_sqlite
        self._committed: set[str] = set()
        upsert: Any = (sqlite if is_sqlite else postgresql).insert(table)
        self._create = upsert.on_conflict_do_nothing()
        self._write = upsert.on_conflict_do_update(
            index_elements=["id"], set_={name: upsert.excluded[name] for name in self.names}
        )
        self._select = select(table).where(among(table.c.id, is_sqlite))
        if not is_sqlite:
            self._select = self._select.order_by(table.c.id).with_for_update()

    def lock(self, connection: Connection, ids: set[str]) -> dict[str, dict[str, Any]]:
        """The rows of `ids`, made where there are none; nobody else changes them meanwhile."""
        if not ids:
            return {}
        ordered = sorted(ids)
        if not self._is_sqlite:
            self._make(connection, [id for id in ordered if id not in self._committed])
        rows = self._read(connection, ordered)
        missing = [id for id in ordered if id not in rows]
        if missing and not self._is_sqlite:
            self._make(connection, missing)
            rows = self._read(connection, ordered)
            missing = []
        for id in missing:
            rows[id] = {"id": id, **dict.fromkeys(self.names, 0)}
        return rows

    def write(self, connection: Connection, rows: Iterable[dict[str, Any]]) -> None:
        """Store the new values."""
        changed = list(rows)
        if changed:
            connection.execute(self._write, changed)

    def committed(self, ids: Iterable[str]) -> None:
        """The transaction that locked `ids` is over: their rows exist."""
        if len(self._committed) > MAX_KNOWN:
            self._committed.clear()
        self._committed.update(ids)

    def _make(self, connection: Connection, ids: list[str]) -> None:
        if ids:
            zeros = dict.fromkeys(self.names, 0)
            connection.execute(self._create, [{"id": id, **zeros} for id in ids])

    def _read(self, connection: Connection, ids: list[str]) -> dict[str, dict[str, Any]]:
        found = connection.execute(self._select, ids_parameter(ids, self._is_sqlite))
        return {row[0]: dict(zip(("id", *self.names), row, strict=True)) for row in found}
