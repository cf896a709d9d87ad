"""`tests/unit/store/test_usage.py` on PostgreSQL."""

from tests.unit.store.test_usage import *  # noqa: F403
