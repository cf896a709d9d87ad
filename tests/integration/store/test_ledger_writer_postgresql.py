"""`tests/unit/store/test_ledger_writer.py` on PostgreSQL."""

from tests.unit.store.test_ledger_writer import *  # noqa: F403
