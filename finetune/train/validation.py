"""Held-out loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from finetune.data.tokenise import TokenisedPart
from finetune.train.batch import batch_of
from finetune.train.learner import Learner, Outcome
from finetune.train.schedule import in_batches, pair_lengths


@dataclass(frozen=True)
class Validation:
    """Over the whole held-out part."""

    loss: float
    """Nats a token, or a pair."""
    accuracy: float
    """Share of tokens that were the likeliest, or of pairs in the right order."""


def validate(
    learner: Learner,
    part: TokenisedPart,
    max_tokens: int,
    accelerator: Accelerator,
    reference: Tensor | None = None,
) -> Validation:
    """Without dropout; workers share the batches."""
    learner.eval()
    batches = in_batches(pair_lengths(part), max_tokens)
    sums = torch.zeros(3, dtype=torch.float64, device=accelerator.device)
    for micro in batches[accelerator.process_index :: accelerator.num_processes]:
        batch = batch_of(part, micro).to(accelerator.device)
        extra = () if reference is None else (reference_of(reference, micro, batch.tokens.device),)
        with torch.no_grad():
            found: Outcome = learner(batch, *extra)
        sums += torch.stack(
            [found.loss.double(), found.correct.double(), sums.new_tensor(found.count)]
        )
    learner.train()
    loss, correct, count = accelerator.reduce(sums, "sum").tolist()
    return Validation(loss / count, correct / count)


def reference_of(reference: Tensor, micro: tuple[int, ...], device: torch.device) -> Tensor:
    """(S,): likelihoods under the base model in the order of `batch_of`."""
    return reference[:, list(micro)].reshape(-1).to(device)
