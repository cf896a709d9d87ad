"""Migrations: they make what the code says, once, and never go backwards."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import text

from serving.store import migrating
from serving.store.config import StoreConfig
from serving.store.database import Store, connect
from serving.store.errors import Invalid, StoreTooNew, StoreUnavailable
from serving.store.opening import open_store
from tests.postgres import Server
from tests.unit.store.conftest import Opener


def test_migrations_make_exactly_the_tables_of_the_code(store: Store) -> None:
    assert migrating.differences(store) == []
    with store.write() as connection:
        connection.execute(text("ALTER TABLE usage ADD COLUMN stray TEXT"))
    assert any("stray" in line for line in migrating.differences(store))


def test_the_code_knows_its_newest_step(store: Store) -> None:
    assert ScriptDirectory.from_config(migrating.script_config()).get_heads() == [migrating.HEAD]
    assert migrating.revision(store) == migrating.HEAD
    assert not migrating.migrate(store)


def test_a_newer_database_is_refused_with_the_mend(store: Store, opener: Opener) -> None:
    with store.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreTooNew, match=r"at step 9999.*Install the corral that wrote it"):
        opener()


def test_starts_at_once_migrate_once(
    request: pytest.FixtureRequest, config: StoreConfig, tmp_path: Path
) -> None:
    if config.url is not None:
        server: Server = request.getfixturevalue("postgres")
        config = StoreConfig(url=server.database(f"bare-{tmp_path.name}"))
    made: list[bool] = []
    stores = [connect(config, tmp_path / "many") for _ in range(6)]

    def start(store: Store) -> None:
        made.append(migrating.migrate(store))

    threads = [threading.Thread(target=start, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 5 + [True]
    for store in stores:
        store.close()


def test_the_sqlite_file_is_its_owners_alone(tmp_path: Path) -> None:
    open_store(StoreConfig(), tmp_path / "store").close()
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "store/corral.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("url", ["nonsense", "mysql://a@b/c", "sqlite://"])
def test_other_databases_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"store\.url"):
        connect(StoreConfig(url=url), tmp_path)


def test_a_database_that_is_not_there_is_unavailable_without_its_password(tmp_path: Path) -> None:
    url = f"postgresql://ada:hunter2@/x?host={tmp_path}"
    with pytest.raises(StoreUnavailable, match="does not answer") as caught:
        migrating.migrate(_without_stamp(url))
    assert "hunter2" not in str(caught.value)


def _without_stamp(url: str) -> Store:
    from sqlalchemy import create_engine

    from serving.store.stamps import FileStamp

    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    return Store(engine, FileStamp(Path(url.rpartition("=")[2]) / "stamp"))
