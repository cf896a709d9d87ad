"""Examples joined in one row of tokens: no padding, each with positions of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from finetune.data.packing import IGNORED, pack
from finetune.data.tokenise import TokenisedPart
from finetune.data.tokenizer import Encoded


@dataclass(frozen=True)
class Batch:
    """One row of T tokens from S sequences, of which L tokens are learnt."""

    tokens: Tensor
    """(1, T) int64."""
    positions: Tensor
    """(1, T) int64; 0 where a sequence begins."""
    cu_seqlens: Tensor
    """(S + 1,) int32: where sequences begin, and the end."""
    edges: tuple[int, ...]
    """The same on the host."""
    max_seqlen: int
    """Tokens of the longest sequence."""
    sources: Tensor
    """(L,) int64: positions whose hidden state predicts a learnt token, the one after it."""
    targets: Tensor
    """(L,) int64: the learnt tokens."""
    owners: Tensor
    """(L,) int64: the sequence that each belongs to."""

    @property
    def size(self) -> int:
        """T."""
        return self.edges[-1]

    @property
    def learnt(self) -> int:
        """L."""
        return len(self.targets)

    @property
    def sequences(self) -> int:
        """S."""
        return len(self.edges) - 1

    def to(self, device: torch.device) -> Batch:
        """A copy on the device."""
        if device.type == "cpu":
            return self
        names = ("tokens", "positions", "cu_seqlens", "sources", "targets", "owners")
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in names}
        return Batch(**moved, edges=self.edges, max_seqlen=self.max_seqlen)


def make_batch(examples: Sequence[Encoded]) -> Batch:
    """Join at least one example."""
    packed = pack(examples)
    learnt = [at for at, label in enumerate(packed.labels) if label != IGNORED]
    owners = [
        owner
        for owner, (low, high) in enumerate(pairwise(packed.cu_seqlens))
        for label in packed.labels[low:high]
        if label != IGNORED
    ]
    return Batch(
        tokens=torch.tensor([packed.tokens]),
        positions=torch.tensor([packed.position_ids]),
        cu_seqlens=torch.tensor(packed.cu_seqlens, dtype=torch.int32),
        edges=tuple(packed.cu_seqlens),
        max_seqlen=packed.max_seqlen,
        sources=torch.tensor([at - 1 for at in learnt], dtype=torch.int64),
        targets=torch.tensor([packed.labels[at] for at in learnt], dtype=torch.int64),
        owners=torch.tensor(owners, dtype=torch.int64),
    )


def batch_of(part: TokenisedPart, micro: Sequence[int]) -> Batch:
    """The examples `micro`; of preference pairs all preferred answers, then all others."""
    examples = [part.chosen[index] for index in micro]
    if len(part.rejected):
        examples += [part.rejected[index] for index in micro]
    return make_batch(examples)
