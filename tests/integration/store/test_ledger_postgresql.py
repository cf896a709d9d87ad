"""`tests/unit/store/test_ledger.py` on PostgreSQL."""

from tests.unit.store.test_ledger import *  # noqa: F403
