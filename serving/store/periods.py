"""Days and months, in UTC: the windows of budgets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

DAY_US = 86_400_000_000


class Period(NamedTuple):
    """A day with its month: `2026-11-23`, `2026-11`, and when each ends (µs since 1970)."""

    day: str
    month: str
    day_ends_us: int
    month_ends_us: int


def period(at_us: int) -> Period:
    """The day and the month of a moment."""
    return _period(at_us // DAY_US)


@lru_cache(64)
def _period(days: int) -> Period:
    day = datetime.fromtimestamp(days * 86_400, UTC)
    first = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
    ends = int(first.timestamp()) * 1_000_000
    return Period(f"{day:%Y-%m-%d}", f"{day:%Y-%m}", (days + 1) * DAY_US, ends)
