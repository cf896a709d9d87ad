"""The seams to a model: who scores text, who writes it. Loads nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from finetune.data.tokenizer import Encoded

Version = Literal["base", "live", "candidate"]
"""The bare base model, the adapter that is served now, the one that was trained."""
Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Score:
    """Negative log-likelihood of the trainable tokens of one sequence."""

    nll: float
    """Their sum, nats."""
    tokens: int
    """Their number."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A greedy continuation, control tokens left out."""

    text: str
    finish: Finish
    """`length`: it had not ended after the tokens it was given."""


class Scorer(Protocol):
    """Gives likelihoods."""

    def score(self, sequences: Sequence[Encoded], version: Version) -> list[Score]:
        """One Score a sequence, in their order. Deterministic."""
        ...


class Generator(Protocol):
    """Writes answers."""

    def generate(
        self, prompts: Sequence[Sequence[int]], version: Version, max_new_tokens: int
    ) -> list[Answer]:
        """Greedy answers to prompts (token ids), in their order. Deterministic."""
        ...


class Model(Scorer, Generator, Protocol):
    """Both at once, as evaluation needs them."""
