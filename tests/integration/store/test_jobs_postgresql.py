"""`tests/unit/store/test_jobs.py` on PostgreSQL."""

from tests.unit.store.test_jobs import *  # noqa: F403
