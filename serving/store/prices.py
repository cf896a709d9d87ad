"""What a request costs, in nano-dollars: whole numbers times whole numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from serving.store.config import PriceConfig
from serving.store.ledger_types import Tokens
from serving.store.money import per_million, per_second


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-dollars per token, or per second of a GPU."""

    input: int = 0
    cached_input: int = 0
    output: int = 0
    embedding: int = 0
    gpu_second: int = 0

    def cost(self, used: Tokens) -> int:
        """Nano-dollars for `used`; a started nano-dollar of GPU time counts in full."""
        return (
            (used.input - used.cached) * self.input
            + used.cached * self.cached_input
            + used.output * self.output
            + used.embedding * self.embedding
            - (-used.gpu_us * self.gpu_second // 1_000_000)
        )


FREE = Price()


class PriceBook:
    """Prices by name: `base:adapter` wins over `base`; what has none is free."""

    def __init__(self, prices: Mapping[str, PriceConfig]) -> None:
        self._prices = {name: _price(config) for name, config in prices.items()}

    def of(self, model: str, adapter: str | None = None) -> Price:
        """The price of base `model` with adapter `name`."""
        if adapter:
            own = self._prices.get(f"{model}:{adapter}")
            if own is not None:
                return own
        return self._prices.get(model, FREE)


def _price(config: PriceConfig) -> Price:
    base = per_million(config.input)
    cached, embedding = config.cached_input, config.embedding
    return Price(
        input=base,
        cached_input=base if cached is None else per_million(cached),
        output=per_million(config.output),
        embedding=base if embedding is None else per_million(embedding),
        gpu_second=0 if config.gpu_second is None else per_second(config.gpu_second),
    )
