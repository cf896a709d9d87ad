"""Money in whole nano-US-dollars. No floating point takes part in it."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

NANO = 10**9
MAX_NUSD = 2**62
"""Four billion dollars: sums of two such still fit 64 bits."""


def nusd(dollars: Decimal | int | str) -> int:
    """`dollars` in nano-dollars. Raises ValueError unless it fits exactly and is not negative."""
    try:
        amount = Decimal(dollars) * NANO
    except InvalidOperation as exc:
        raise ValueError(f"{dollars!r} is no amount of money") from exc
    if not amount.is_finite() or amount != amount.to_integral_value():
        raise ValueError(
            f"${dollars} is no whole number of nano-dollars; use nine decimals or less"
        )
    if not 0 <= amount <= MAX_NUSD:
        raise ValueError(f"${dollars} is not between 0 and {MAX_NUSD // NANO} dollars")
    return int(amount)


def per_million(dollars: Decimal) -> int:
    """Dollars per million tokens as nano-dollars per token. Raises ValueError unless exact."""
    amount = dollars * 1000
    if not amount.is_finite() or amount != amount.to_integral_value() or amount < 0:
        raise ValueError(f"${dollars} a million tokens is not exact; use three decimals or less")
    return int(amount)


def per_second(dollars: Decimal) -> int:
    """Dollars per second as nano-dollars per second. Raises ValueError unless exact."""
    return nusd(dollars)


def dollars(amount_nusd: int) -> Decimal:
    """Nano-dollars as dollars, exactly."""
    return Decimal(amount_nusd).scaleb(-9)


def text(amount_nusd: int) -> str:
    """Dollars as people read them: `$0.15`, `$0.000123`; exact, without trailing zeros."""
    number = f"{dollars(amount_nusd):.9f}".rstrip("0")
    whole, _, part = number.partition(".")
    return f"${whole}.{part.ljust(2, '0')}"
