"""`tests/unit/store/test_ledger_machine.py` on PostgreSQL."""

from tests.unit.store.test_ledger_machine import *  # noqa: F403
