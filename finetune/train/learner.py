"""Model and loss as one module: what a worker computes for a batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from finetune.data.tokenise import TokenisedPart
from finetune.errors import ModelUnavailable
from finetune.train.attention import NAME
from finetune.train.batch import Batch, batch_of
from finetune.train.loss import TokenLoss, pair_loss, sequence_logps, token_loss


@dataclass(frozen=True)
class Outcome:
    """Sums over one batch; divide by `count` for means."""

    loss: Tensor
    """() float32: nats, of tokens or of pairs."""
    correct: Tensor
    """() float32: tokens that were the likeliest, or pairs in the right order."""
    count: int
    """Learnt tokens, or pairs."""


class Learner(nn.Module):  # type: ignore[misc]
    """Supervised: the sum of learnt tokens' losses."""

    def __init__(self, model: PeftModel) -> None:
        super().__init__()
        self.model = model
        base: Any = model.get_base_model()
        self._decoder = [base.base_model]
        head = base.get_output_embeddings()
        if type(head) is not nn.Linear or head.weight.requires_grad:
            raise ModelUnavailable(
                f"the model's output head is a {type(head).__name__}, not a frozen linear layer"
            )
        self._head = [head]
        self._isolated = base.config._attn_implementation == NAME

    def forward(self, batch: Batch) -> Outcome:
        """Losses of one batch on the model's device."""
        found = self.token_losses(batch)
        return Outcome(found.nll.sum(), found.correct.sum().float(), batch.learnt)

    def token_losses(self, batch: Batch) -> TokenLoss:
        """Of every learnt token."""
        hidden = self.hidden(batch)[batch.sources]
        return token_loss(hidden, self._head[0], batch.targets)

    def hidden(self, batch: Batch) -> Tensor:
        """(T, dim): the last layer's output."""
        extra: dict[str, Any] = {}
        if self._isolated:
            extra = {
                "cu_seqlens": batch.cu_seqlens,
                "edges": batch.edges,
                "max_seqlen": batch.max_seqlen,
            }
        found = self._decoder[0](
            input_ids=batch.tokens, position_ids=batch.positions, use_cache=False, **extra
        )
        hidden: Tensor = found.last_hidden_state
        return hidden[0]


class PairLearner(Learner):
    """Direct preference optimisation against the base model, which is the same weights with the
    adapter off. Reference likelihoods are computed before the first step, once."""

    def __init__(self, model: PeftModel, beta: float) -> None:
        super().__init__(model)
        self._beta = beta

    def forward(self, batch: Batch, reference: Tensor | None = None) -> Outcome:
        """Losses of a batch of pairs; `reference` (S,) from `reference_logps`."""
        assert reference is not None
        found = self.token_losses(batch)
        logps = sequence_logps(found.nll, batch.owners, batch.sequences)
        pairs = pair_loss(logps, reference, self._beta)
        return Outcome(pairs.loss.sum(), pairs.preferred.sum().float(), batch.sequences // 2)

    def reference_logps(self, part: TokenisedPart, batches: Iterable[tuple[int, ...]]) -> Tensor:
        """(2, pairs) float32 on the CPU: log-likelihoods of preferred and other answers under
        the base model."""
        result = torch.zeros(2, len(part))
        with torch.no_grad(), self.model.disable_adapter():
            for micro in batches:
                batch = batch_of(part, micro).to(self._head[0].weight.device)
                nll = self.token_losses(batch).nll
                logps = sequence_logps(nll, batch.owners, batch.sequences)
                result[:, list(micro)] = logps.view(2, -1).cpu()
        return result
