"""`tests/unit/store/test_vector_stores.py` on PostgreSQL."""

from tests.unit.store.test_vector_stores import *  # noqa: F403
