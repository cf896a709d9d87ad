"""`tests/unit/store/test_alert_sender.py` on PostgreSQL."""

from tests.unit.store.test_alert_sender import *  # noqa: F403
