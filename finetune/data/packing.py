"""Several examples in one sequence, none seeing another.

First-fit decreasing (Johnson 1973): at most 11/9 of the fewest sequences, plus 6/9. Pure
functions of lengths and tokens, the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from finetune.data.tokenizer import Encoded

IGNORED = -100
"""Label of a token that is not learnt (PyTorch's `ignore_index`)."""


@dataclass(frozen=True)
class Packed:
    """One packed sequence; all three lists have its length, in tokens."""

    tokens: list[int]
    labels: list[int]
    """The token itself where it is learnt, else IGNORED; always IGNORED where an example begins,
    since what precedes it belongs to another. Not shifted: the model's loss shifts them."""
    position_ids: list[int]
    """Restart at 0 with each example."""
    cu_seqlens: list[int]
    """Where examples begin, and the end: `[0, 5, 9]` for two of 5 and 4 tokens, as variable-length
    attention kernels take it. A token may attend only to those from its own example's start."""

    @property
    def max_seqlen(self) -> int:
        """Tokens of the longest example in it."""
        return max(high - low for low, high in pairwise(self.cu_seqlens))


def plan_packs(lengths: Sequence[int], max_length: int) -> list[list[int]]:
    """Which examples, by index, share a sequence of at most `max_length` tokens.

    Longest first, the earlier one first among equals, each into the first sequence with room:
    O(n log n). Raises ValueError for a length outside of 1 to `max_length`.
    """
    for index, length in enumerate(lengths):
        if not 1 <= length <= max_length:
            raise ValueError(f"example {index} has {length} tokens, not 1 to {max_length}")
    packs: list[list[int]] = []
    room = _FirstFit(len(lengths), max_length)
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        at = room.take(lengths[index])
        if at == len(packs):
            packs.append([])
        packs[at].append(index)
    return packs


def pack(examples: Sequence[Encoded]) -> Packed:
    """Join at least one example, in the order given."""
    packed = Packed([], [], [], [0])
    for example in examples:
        packed.tokens.extend(example.tokens)
        labels = [
            token if learnt else IGNORED
            for token, learnt in zip(example.tokens, example.trainable, strict=True)
        ]
        packed.labels.extend([IGNORED, *labels[1:]])
        packed.position_ids.extend(range(len(example.tokens)))
        packed.cu_seqlens.append(len(packed.tokens))
    return packed


class _FirstFit:
    """A tournament tree over the room that each bin has left; finds the first with enough."""

    def __init__(self, bins: int, capacity: int) -> None:
        self._leaves = 1
        while self._leaves < bins:
            self._leaves *= 2
        self._room = [capacity] * (2 * self._leaves)

    def take(self, size: int) -> int:
        """Take `size` from the first bin that has it; the bin's index."""
        room, node = self._room, 1
        while node < self._leaves:
            node *= 2
            if room[node] < size:
                node += 1
        found = node - self._leaves
        room[node] -= size
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
        return found
