"""Prompts of token ids: exact lengths, never the same twice unless they are meant to be.

A prompt that came before is answered from the prefix cache, and what is then measured is
the cache. Every stream draws from a generator of its own, seeded by the workload's seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

__all__ = ["Request", "TokenWorkload"]


@dataclass(frozen=True)
class Request:
    """What is asked: the model's name and the prompt."""

    model: str
    prompt: list[int]


@dataclass(frozen=True)
class TokenWorkload:
    """How the prompts of a load are drawn. Lengths in tokens."""

    input_tokens: int
    seed: int
    first_id: int = 256
    last_id: int = 32_000
    """Ids are drawn from `first_id` up to `last_id`, both included."""
    models: tuple[str, ...] = ()
    """Drawn for every request, instead of the load's one model."""
    zipf: float = 0.0
    """Exponent of the models' frequencies by rank; 0 draws them uniformly."""
    prefixes: int = 0
    """Different beginnings that the prompts share; 0 shares none."""
    prefix_tokens: int = 0
    """Length of those beginnings, within `input_tokens`."""

    @staticmethod
    def from_fields(fields: Mapping[str, Any]) -> TokenWorkload:
        """From its own fields as JSON brings them."""
        return TokenWorkload(**{**fields, "models": tuple(fields.get("models", ()))})

    def requests(self, stream: int, model: str) -> Iterator[Request]:
        """The endless requests of one stream, always the same ones for the same seed."""
        draw = random.Random(f"{self.seed}/{stream}")
        shared = [self._shared(index) for index in range(self.prefixes)]
        weights = list(accumulate(1 / rank**self.zipf for rank in range(1, len(self.models) + 1)))
        while True:
            start = draw.choice(shared) if shared else []
            prompt = start + self._ids(draw, self.input_tokens - len(start))
            name = draw.choices(self.models, cum_weights=weights)[0] if self.models else model
            yield Request(name, prompt)

    def _shared(self, index: int) -> list[int]:
        return self._ids(random.Random(f"{self.seed}/prefix/{index}"), self.prefix_tokens)

    def _ids(self, draw: random.Random, count: int) -> list[int]:
        return draw.choices(range(self.first_id, self.last_id + 1), k=count)
