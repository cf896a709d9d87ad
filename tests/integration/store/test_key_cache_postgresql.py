"""`tests/unit/store/test_key_cache.py` on PostgreSQL."""

from tests.unit.store.test_key_cache import *  # noqa: F403
