"""Money: whole nano-dollars in and out, and nothing that would not fit exactly."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import ConfigError, parse
from serving.store import money, rates
from serving.store.config import AlertConfig, PriceConfig


@given(st.integers(0, money.MAX_NUSD))
def test_nano_dollars_survive_the_way_to_dollars_and_back(amount: int) -> None:
    assert money.nusd(money.dollars(amount)) == amount
    assert money.nusd(money.text(amount).lstrip("$")) == amount


@pytest.mark.parametrize("amount", ["0.0000000001", "-1", "NaN", "Infinity", "x", "99999999999"])
def test_what_does_not_fit_exactly_is_no_money(amount: str) -> None:
    with pytest.raises(ValueError, match=r"dollars|amount of money"):
        money.nusd(amount)


@pytest.mark.parametrize(
    ("price", "nusd"), [("0.15", 150), ("60", 60_000), ("0.001", 1), ("0", 0), ("1e3", 10**6)]
)
def test_prices_of_a_million_tokens(price: str, nusd: int) -> None:
    assert money.per_million(Decimal(price)) == nusd


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"input": 0.0001}, "three decimals"),
        ({"output": "0.1234"}, "three decimals"),
        ({"cached_input": "0.00005"}, "three decimals"),
        ({"gpu_second": "0.0000000001"}, "nine decimals"),
        ({"gpu_second": 1, "output": 1}, "one of them"),
        ({"input": -1}, "greater than or equal to 0"),
    ],
)
def test_prices_that_would_be_rounded_are_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse(PriceConfig, given)


def test_a_price_as_yaml_reads_it_is_exact() -> None:
    price = parse(PriceConfig, {"input": 0.15})
    assert parse(PriceConfig, price.model_dump(mode="json")) == price
    assert money.per_million(price.input) == 150


def test_thresholds_are_per_cents() -> None:
    assert AlertConfig(thresholds=(100, 50, 50)).thresholds == (50, 100)
    with pytest.raises(ConfigError, match="per cent"):
        parse(AlertConfig, {"thresholds": [101]})


@given(
    per_minute=st.integers(1, 10**6),
    asks=st.lists(st.tuples(st.integers(0, 10**11), st.integers(1, 2 * 10**6)), max_size=30),
)
def test_a_rate_is_never_exceeded(per_minute: int, asks: list[tuple[int, int]]) -> None:
    """In any minute at most what the minute allows, beside one whole burst that was saved up."""
    now = tat = 10**18
    granted: list[tuple[int, int]] = []
    for pause, amount in asks:
        now += pause
        if rates.wait_ns(tat, now, amount, per_minute) == 0:
            assert amount <= rates.remaining(tat, now, per_minute)
            tat = max(tat, now) + rates.price_ns(amount, per_minute)
            granted.append((now, amount))
        elif amount <= per_minute:
            assert amount > rates.remaining(tat, now, per_minute)
    for start, _ in granted:
        minute = [amount for at, amount in granted if start <= at < start + rates.MINUTE_NS]
        assert sum(minute) <= 2 * per_minute
