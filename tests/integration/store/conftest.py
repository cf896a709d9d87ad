"""The fixtures of the store's unit tests, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from serving.store.config import StoreConfig
from tests.postgres import Server
from tests.unit.store.conftest import copy_of_ready, opener, postgres, ready, store

__all__ = ["opener", "postgres", "ready", "store"]


@pytest.fixture
def config(postgres: Server) -> Iterator[StoreConfig]:
    """An empty store's configuration."""
    with copy_of_ready(postgres) as copied:
        yield copied
