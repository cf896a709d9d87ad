"""Rates per minute as one number each: the generic cell rate algorithm (ITU-T I.371).

The number is the theoretical arrival time in nanoseconds: the moment at which the
allowance is whole again. A burst may use the whole minute's allowance at once; it then
comes back evenly.
"""

from __future__ import annotations

MINUTE_NS = 60 * 10**9


def price_ns(amount: int, per_minute: int) -> int:
    """Time in which `amount` comes back."""
    return amount * MINUTE_NS // per_minute


def wait_ns(tat_ns: int, now_ns: int, amount: int, per_minute: int) -> int | None:
    """How long until `amount` is allowed: 0 is now, None is never (more than a minute's whole)."""
    if amount == 0:
        return 0
    if amount > per_minute:
        return None
    return max(0, max(tat_ns - now_ns, 0) + price_ns(amount, per_minute) - MINUTE_NS)


def remaining(tat_ns: int, now_ns: int, per_minute: int) -> int:
    """What is allowed now."""
    free_ns = MINUTE_NS - max(tat_ns - now_ns, 0)
    return max(0, free_ns * per_minute // MINUTE_NS)
