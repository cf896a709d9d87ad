"""`tests/unit/store/test_blobs.py` on PostgreSQL."""

from tests.unit.store.test_blobs import *  # noqa: F403
