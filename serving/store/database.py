"""The connection to SQLite or PostgreSQL: who may write, and how errors are named."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, InterfaceError, OperationalError

from serving.store.config import StoreConfig
from serving.store.errors import Invalid, StoreUnavailable
from serving.store.stamps import CHANNEL, FileStamp, NotifyStamp, Stamp

_WRITE = "corral_write"


class Store:
    """One process's door to the database. Threads may share it."""

    def __init__(self, engine: Engine, stamp: Stamp) -> None:
        self.engine = engine
        self.stamp = stamp
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._clock_offset_us = 0

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads. Raises StoreUnavailable."""
        with self._translated(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self, *, announce: bool = False) -> Iterator[Connection]:
        """A transaction, committed at the end and undone by an exception.

        SQLite takes the one write lock at its beginning. `announce` tells every
        gateway that what it knows of keys, tenants and limits is out of date.
        """
        with self._translated(), self.engine.connect() as plain:
            connection = plain.execution_options(**{_WRITE: True})
            with connection.begin():
                if announce and not self.is_sqlite:
                    connection.execute(text(f"NOTIFY {CHANNEL}"))
                yield connection
        if announce:
            self.stamp.announce()

    def now_us(self) -> int:
        """Microseconds since 1970 by the database's clock, which all gateways share."""
        return time.time_ns() // 1000 + self._clock_offset_us

    def set_clock(self) -> None:
        """Learn how far this machine's clock is from PostgreSQL's. SQLite's is this machine's."""
        if self.is_sqlite:
            return
        with self.read() as connection:
            before = time.time_ns()
            query = text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
            theirs = int(connection.execute(query).scalar_one())
            ours = (before + time.time_ns()) // 2000
        self._clock_offset_us = theirs - ours

    @property
    def place(self) -> str:
        """Where the database is, without a password."""
        return self.engine.url.render_as_string(hide_password=True)

    def close(self) -> None:
        """Close all connections."""
        self.stamp.close()
        self.engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, InterfaceError) as exc:
            raise StoreUnavailable(
                f"the store at {self.place} does not answer: {exc.orig}. `corral store check`"
            ) from exc
        except DataError as exc:
            raise Invalid(f"the store cannot hold this value: {exc.orig}") from exc
        except DBAPIError as exc:
            if exc.connection_invalidated:
                raise StoreUnavailable(f"the store at {self.place} hung up: {exc.orig}") from exc
            raise


def sqlite_path(config: StoreConfig, folder: Path) -> Path | None:
    """The file of the SQLite database, or None where PostgreSQL is configured."""
    url = store_url(config, folder)
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def store_url(config: StoreConfig, folder: Path) -> URL:
    """The database's URL; `folder` is `$CORRAL_HOME/store`. Raises Invalid."""
    if config.url is None:
        return URL.create("sqlite", database=str(folder / "corral.db"))
    try:
        url = make_url(config.url)
    except ArgumentError as exc:
        raise Invalid("store.url is no URL; try postgresql://user@host/corral") from exc
    if url.get_backend_name() in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
        return url
    raise Invalid("store.url must be postgresql://… or sqlite:////absolute/path.db")


def connect(config: StoreConfig, folder: Path) -> Store:
    """A Store without a look at its tables; see `opening.open_store`."""
    url = store_url(config, folder)
    if url.get_backend_name() == "sqlite":
        return _sqlite(config, url)
    engine = create_engine(
        url,
        pool_size=config.pool_size,
        pool_timeout=config.busy_timeout_s,
        pool_pre_ping=True,
        connect_args={"connect_timeout": 10},
    )
    conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return Store(engine, NotifyStamp(conninfo))


def _sqlite(config: StoreConfig, url: URL) -> Store:
    path = Path(url.database or "")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    engine = create_engine(
        url,
        pool_size=config.pool_size,
        connect_args={"timeout": config.busy_timeout_s, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None  # transactions begin where `begin` below says so
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={config.synchronous}")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA temp_store=MEMORY")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITE)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return Store(engine, FileStamp(path.with_suffix(".stamp")))
