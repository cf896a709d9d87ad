"""One update of the adapter, by one of several workers."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from finetune.config import FinetuneConfig
from finetune.data.tokenise import Tokenised, TokenisedPart
from finetune.train.batch import batch_of
from finetune.train.learner import Learner, PairLearner
from finetune.train.model import Place, load_model
from finetune.train.schedule import Step, in_batches, pair_lengths
from finetune.train.validation import Validation, reference_of, validate

_SEEDS = 2**63


@dataclass(frozen=True)
class Update:
    """What came of one step."""

    loss: float
    """Mean over all that it learns, nats."""
    accuracy: float
    """Share of learnt tokens that were the likeliest, or of pairs in the right order."""
    gradient: float
    """Length before clipping."""


class Updater:
    """Model, loss and optimiser of one worker; with several, DDP keeps them the same."""

    def __init__(self, config: FinetuneConfig, folder: Path, place: Place, data: Tokenised) -> None:
        self.config, self.data = config, data
        self.accelerator = Accelerator(cpu=place.device.type == "cpu")
        self.device = self.accelerator.device
        _set_deterministic(config.train.deterministic)
        self.model = load_model(config, folder, Place(self.device, place.precision))
        self.pairs = config.train.method == "dpo"
        beta = config.train.beta
        self.learner = PairLearner(self.model, beta) if self.pairs else Learner(self.model)
        self.weights = [each for each in self.model.parameters() if each.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self.weights,
            lr=config.train.learning_rate,
            weight_decay=config.train.weight_decay,
            fused=True,
        )
        chosen = data.train.chosen
        self.counts = [1] * len(data.train) if self.pairs else chosen.trainable_counts()
        self._references: dict[str, Tensor] = {}
        self._forward: Any = self.learner

    @property
    def is_first(self) -> bool:
        """Whether this worker is the one that writes."""
        return bool(self.accelerator.is_main_process)

    def prepare(self) -> None:
        """What is computed once, after the weights are in place and before the first step."""
        if isinstance(self.learner, PairLearner):
            self.learner.eval()
            for name, part in (("train", self.data.train), ("validation", self.data.validation)):
                batches = in_batches(pair_lengths(part), self._tokens)
                self._references[name] = self.learner.reference_logps(part, batches)
        self.learner.train()
        self._forward = self.accelerator.prepare(self.learner)

    def update(self, index: int, step: Step, rate: float) -> Update:
        """Move the weights by the gradient of the mean over all that the step learns."""
        learnt = sum(self.counts[example] for micro in step.micro for example in micro)
        sums = self._gradients(index, step, learnt)
        clip = self.config.train.clip or float("inf")
        length = torch.nn.utils.clip_grad_norm_(self.weights, clip)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        loss, correct = self.accelerator.reduce(sums, "sum").tolist()
        return Update(loss / learnt, correct / learnt, float(length))

    def validate(self) -> Validation:
        """Over the held-out part."""
        return validate(
            self.learner,
            self.data.validation,
            self._tokens,
            self.accelerator,
            self._references.get("validation"),
        )

    def any(self, asked: bool) -> bool:
        """Whether any worker says so."""
        if self.accelerator.num_processes == 1:
            return asked
        votes = torch.tensor(float(asked), device=self.device)
        return bool(self.accelerator.reduce(votes, "sum").item() > 0)

    @property
    def _tokens(self) -> int:
        """As many at once, without gradients, as a batch of packs has."""
        return self.config.data.max_length * min(4, self.config.train.batch_size)

    def _gradients(self, index: int, step: Step, learnt: int) -> Tensor:
        """(2,) float32: this worker's sums of losses and of tokens right."""
        worker, workers = self.accelerator.process_index, self.accelerator.num_processes
        sums = torch.zeros(2, device=self.device)
        mine = step.of(worker, workers)
        for place, micro in enumerate(mine):
            if not micro and workers == 1:
                continue
            # A seed of its own for each: dropout does not depend on what came before.
            torch.manual_seed(hash((self.config.seed, index, place, worker)) % _SEEDS)
            # DDP waits for every worker, so one without examples computes some for nothing.
            found_in = micro or (0,)
            batch = batch_of(self.data.train, found_in).to(self.device)
            is_last = place == len(mine) - 1
            with nullcontext() if is_last else self.accelerator.no_sync(self._forward):
                found = self._forward(batch, *self._reference(self.data.train, found_in))
                (found.loss * (workers / learnt if micro else 0.0)).backward()
            if micro:
                sums += torch.stack([found.loss.detach(), found.correct])
        return sums

    def _reference(self, part: TokenisedPart, micro: tuple[int, ...]) -> tuple[Tensor, ...]:
        name = "train" if part is self.data.train else "validation"
        if (held := self._references.get(name)) is None:
            return ()
        return (reference_of(held, micro, self.device),)


def _set_deterministic(wanted: bool) -> None:
    """Only kernels that give the same bytes each time; a GPU without one for an operation warns."""
    # cuBLAS reads it when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted, warn_only=torch.cuda.is_available())
    # By default that also fills each new array first, which a sixth of a step went into.
    torch.utils.deterministic.fill_uninitialized_memory = False
