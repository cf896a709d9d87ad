"""Stores on SQLite. `tests/integration/store` runs the same tests on PostgreSQL."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serving.store.config import StoreConfig
from serving.store.database import Store
from serving.store.opening import open_store
from tests.postgres import NoPostgres, Server, running

ADMIN_KEY = "sk-adminkey-" + "a" * 43
Opener = Callable[[], Store]
_names = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A server with a database `ready`, migrated once, that tests are copied from."""
    try:
        with running() as server:
            url = server.database("ready")
            open_store(StoreConfig(url=url), Path("/nonexistent")).close()
            yield server
    except NoPostgres as exc:
        pytest.skip(str(exc))


@pytest.fixture
def config() -> StoreConfig:
    """An empty store's configuration."""
    return StoreConfig()


@contextmanager
def copy_of_ready(server: Server) -> Iterator[StoreConfig]:
    """A migrated PostgreSQL database of its own."""
    name = f"test{next(_names)}"
    yield StoreConfig(url=server.database(name, "ready"))
    server.drop(name)


@pytest.fixture(scope="session")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database, migrated once, that tests are copied from."""
    folder = tmp_path_factory.mktemp("ready")
    open_store(StoreConfig(), folder).close()
    return folder / "corral.db"


@pytest.fixture
def opener(config: StoreConfig, tmp_path: Path, ready: Path) -> Iterator[Opener]:
    """Opens the same store again and again, as several gateways would."""
    opened: list[Store] = []
    if config.url is None:
        (tmp_path / "store").mkdir(mode=0o700)
        shutil.copy(ready, tmp_path / "store")

    def open_one() -> Store:
        opened.append(open_store(config, tmp_path / "store", ADMIN_KEY))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(opener: Opener) -> Store:
    """An open store with the tenant `default` and an admin key."""
    return opener()
