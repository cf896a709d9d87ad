"""`tests/unit/store/test_keys.py` on PostgreSQL."""

from tests.unit.store.test_keys import *  # noqa: F403
