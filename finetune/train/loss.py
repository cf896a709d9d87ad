"""Losses from hidden states, without a table of logits.

The output head is frozen, so that the gradient of a token's loss with respect to its hidden
state is known as soon as its logits are: (softmax - one-hot) W. Logits are made for learnt
tokens alone, some at a time, and are gone before backward begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_CHUNK_BYTES = {"cpu": 48 << 20, "cuda": 768 << 20}


@dataclass(frozen=True)
class TokenLoss:
    """Of L learnt tokens."""

    nll: Tensor
    """(L,) float32, nats: negative log-likelihood of each."""
    correct: Tensor
    """(L,) bool: whether it was the likeliest token."""


class _FrozenHead(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        needs = ctx.needs_input_grad[0]
        nll = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        correct = torch.empty(len(targets), dtype=torch.bool, device=hidden.device)
        grads = torch.empty_like(hidden) if needs else None
        for start in range(0, len(targets), step := _rows(weight)):
            part = slice(start, start + step)
            wanted = targets[part, None]
            logits = functional.linear(hidden[part], weight, bias)
            logps = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
            chosen = logps.gather(1, wanted)
            nll[part] = -chosen[:, 0]
            correct[part] = chosen[:, 0] >= logps.amax(dim=-1)
            if grads is not None:
                surprise = logps.exp_()
                surprise.scatter_(1, wanted, chosen.exp() - 1)
                grads[part] = surprise.to(weight.dtype) @ weight
        if grads is not None:
            ctx.save_for_backward(grads)
        ctx.mark_non_differentiable(correct)
        return nll, correct

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (grads,) = ctx.saved_tensors
        return grads * grad[:, None].to(grads.dtype), None, None, None


def token_loss(hidden: Tensor, head: torch.nn.Linear, targets: Tensor) -> TokenLoss:
    """`hidden` (L, dim) through the frozen output head, against `targets` (L,)."""
    found = _FrozenHead.apply(hidden, head.weight, head.bias, targets)
    assert isinstance(found, tuple)
    return TokenLoss(*found)


def sequence_logps(nll: Tensor, owners: Tensor, sequences: int) -> Tensor:
    """(S,) float32: log-likelihood of each sequence's learnt tokens."""
    return torch.zeros(sequences, device=nll.device).index_add(0, owners, -nll)


@dataclass(frozen=True)
class PairLoss:
    """Of S / 2 preference pairs."""

    loss: Tensor
    """(S / 2,) nats."""
    preferred: Tensor
    """(S / 2,) bool: whether the adapter moved towards the preferred answer more."""


def pair_loss(logps: Tensor, reference: Tensor, beta: float) -> PairLoss:
    """Direct preference optimisation (Rafailov et al. 2023, equation 7). Both arguments (S,),
    preferred answers first, the others in the same order."""
    chosen, rejected = (logps - reference).chunk(2)
    margin = beta * (chosen - rejected)
    return PairLoss(-functional.logsigmoid(margin), margin > 0)


def _rows(weight: Tensor) -> int:
    """Tokens whose fp32 logits are held at once."""
    held = _CHUNK_BYTES.get(weight.device.type, 256 << 20)
    return max(16, held // (4 * int(weight.shape[0])))
