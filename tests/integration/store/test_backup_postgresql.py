"""`tests/unit/store/test_backup.py` on PostgreSQL."""

from tests.unit.store.test_backup import *  # noqa: F403
