"""`tests/unit/store/test_migrating.py` on PostgreSQL."""

from tests.unit.store.test_migrating import *  # noqa: F403
