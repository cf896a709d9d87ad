"""Brings the tables to this code's state, one process at a time; only that loads Alembic."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from serving.store.database import Store
from serving.store.errors import StoreTooNew, StoreUnavailable

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0003"
"""The newest step in `migrations/versions`."""
_LOCK = 0x636F7272616C  # "corral"


def revision(store: Store) -> str | None:
    """The step that the database is at; None when it is empty. Raises StoreUnavailable."""
    with store.read() as connection:
        return _revision(connection)


def migrate(store: Store) -> bool:
    """Apply what is missing. True if anything was. Raises StoreTooNew, StoreUnavailable."""
    if revision(store) == HEAD:
        return False
    with _alone(store):
        found = revision(store)
        if found == HEAD:
            return False
        _refuse_newer(store, found)
        _upgrade(store)
    return True


def differences(store: Store) -> list[str]:
    """Where the tables differ from the code, in Alembic's words; empty when they agree."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from serving.store import finetuning_tables, vector_tables  # noqa: F401 - all tables
    from serving.store.tables import metadata

    with store.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        return [str(difference) for difference in compare_metadata(context, metadata)]


def script_config() -> Config:
    """Alembic's configuration of the packaged migrations."""
    from alembic.config import Config

    config = Config()
    folder = Path(__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    row = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if row is None else str(row)


def _refuse_newer(store: Store, found: str | None) -> None:
    from alembic.script import ScriptDirectory

    known = {
        script.revision for script in ScriptDirectory.from_config(script_config()).walk_revisions()
    }
    if found is not None and found not in known:
        raise StoreTooNew(
            f"the store at {store.place} is at step {found}, this corral knows up to {HEAD}. "
            "Install the corral that wrote it, or restore a backup made before the upgrade"
        )


def _upgrade(store: Store) -> None:
    from alembic import command

    with store.write() as connection:
        config = script_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    """Hold the lock that all who migrate this database take."""
    if not store.is_sqlite:
        with store.read() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:id)"), {"id": _LOCK})
            try:
                yield
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(:id)"), {"id": _LOCK})
        return
    path = Path(store.engine.url.database or "").with_suffix(".lock")
    try:
        file = path.open("ab")
    except OSError as exc:
        raise StoreUnavailable(f"cannot lock the store: {exc}") from exc
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
