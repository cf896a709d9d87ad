"""`tests/unit/store/test_oidc.py` on PostgreSQL."""

from tests.unit.store.test_oidc import *  # noqa: F403
