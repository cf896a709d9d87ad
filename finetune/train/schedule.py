"""Which examples make which step.

A pure function of the data's content, the configuration and the seed, so that a run that is
resumed at step n needs to know nothing but n. Loads no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from finetune.config import TrainConfig
from finetune.data.packing import plan_packs
from finetune.data.tokenise import TokenisedPart

Micro = tuple[int, ...]
"""Indexes of the examples that one worker computes at once; may be empty."""


@dataclass(frozen=True)
class Step:
    """One update of the adapter: `workers` × `accumulation` micro-batches."""

    micro: tuple[Micro, ...]
    sequences: int
    """Packs in it, or examples."""

    def of(self, worker: int, workers: int) -> tuple[Micro, ...]:
        """The micro-batches of one worker: as many for each."""
        return self.micro[worker::workers]


class Schedule:
    """All steps of a run."""

    def __init__(self, part: TokenisedPart, train: TrainConfig, max_length: int, seed: int) -> None:
        self._part, self._train = part, train
        self._max_length, self._seed = max_length, seed
        self._lengths = pair_lengths(part)
        self._epoch: tuple[int, list[Micro]] = (-1, [])
        self.steps_per_epoch = math.ceil(len(self._sequences(0)) / self._per_step)
        whole = max(1, math.ceil(self.steps_per_epoch * train.epochs - 1e-9))
        self.total = whole if train.max_steps is None else min(whole, train.max_steps)

    @property
    def _micros(self) -> int:
        return self._train.accumulation * self._train.workers

    @property
    def _per_step(self) -> int:
        return self._micros * self._train.batch_size

    @property
    def evaluate_every(self) -> int:
        """Steps between evaluations."""
        return self._train.evaluate_every or self.steps_per_epoch

    @property
    def checkpoint_every(self) -> int:
        """Steps between checkpoints."""
        return self._train.checkpoint_every or self.steps_per_epoch

    def step(self, index: int) -> Step:
        """The step `index`, counted from 0, in any order."""
        epoch, place = divmod(index, self.steps_per_epoch)
        found = self._sequences(epoch)[place * self._per_step : (place + 1) * self._per_step]
        # Dealt out in turn, so that no worker has the rest of an epoch alone.
        micro = tuple(
            tuple(example for sequence in found[start :: self._micros] for example in sequence)
            for start in range(self._micros)
        )
        return Step(micro, len(found))

    def _sequences(self, epoch: int) -> list[Micro]:
        """The epoch's sequences in order: packs of examples, or single ones."""
        if self._epoch[0] != epoch:
            order = self._part.order(self._seed, epoch)
            found: list[Micro] = [(example,) for example in order]
            if self._train.packing and self._train.method == "sft":
                found = self._packs(order)
            self._epoch = (epoch, found)
        return self._epoch[1]

    def _packs(self, order: list[int]) -> list[Micro]:
        """Filled longest first, then put into the order of their earliest example."""
        packs = plan_packs([self._lengths[example] for example in order], self._max_length)
        return [tuple(order[rank] for rank in sorted(pack)) for pack in sorted(packs, key=min)]


def pair_lengths(part: TokenisedPart) -> list[int]:
    """Tokens of each example; of a preference pair, those of both answers."""
    chosen = part.chosen.lengths()
    if not len(part.rejected):
        return chosen
    return [sum(both) for both in zip(chosen, part.rejected.lengths(), strict=True)]


def in_batches(lengths: Sequence[int], max_tokens: int) -> list[Micro]:
    """All examples in their order, as many at once as `max_tokens` allows, at least one."""
    batches: list[Micro] = []
    held: list[int] = []
    tokens = 0
    for index, length in enumerate(lengths):
        if held and tokens + length > max_tokens:
            batches.append(tuple(held))
            held, tokens = [], 0
        held.append(index)
        tokens += length
    return [*batches, tuple(held)] if held else batches
