"""Every test of the store runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
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


@pytest.fixture(params=["sqlite", "postgresql"])
def config(request: pytest.FixtureRequest) -> Iterator[StoreConfig]:
    """An empty store's configuration."""
    if request.param == "sqlite":
        yield StoreConfig()
        return
    server: Server = request.getfixturevalue("postgres")
    name = f"test{next(_names)}"
    yield StoreConfig(url=server.database(name, "ready"))
    server.drop(name)


@pytest.fixture
def opener(config: StoreConfig, tmp_path: Path) -> Iterator[Opener]:
    """Opens the same store again and again, as several gateways would."""
    opened: list[Store] = []

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
