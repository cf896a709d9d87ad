"""How much there is to compute: steps and tokens, from the tokenised data."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from finetune.config import FinetuneConfig
from finetune.data.tokenise import Tokenised
from finetune.train.schedule import Schedule, pair_lengths


@dataclass(frozen=True)
class Workload:
    """What a run computes. Preference pairs count both answers."""

    examples: int
    tokens: int
    """Of the training data, once through."""
    learnt: int
    """Of those, the ones in the loss."""
    longest: int
    """Tokens of the longest single sequence."""
    validation_tokens: int
    steps: int
    """Updates of the adapter."""
    steps_per_epoch: int
    evaluations: int
    """Measurements of the validation loss."""
    checkpoints: int
    widest: int
    """Tokens that one worker computes at once, at most."""
    widest_learnt: int
    """Of those, the ones in the loss, at most."""
    reference_passes: int = 0
    """Forward passes without gradient for each one with: 1 for DPO."""

    @property
    def trained_tokens(self) -> int:
        """Tokens that go through training, all epochs."""
        return round(self.tokens * self.steps / max(1, self.steps_per_epoch))


def workload(config: FinetuneConfig, data: Tokenised) -> Workload:
    """Count. Steps are those of the schedule that trains; data without an example gives none."""
    part = data.train
    lengths = pair_lengths(part)
    learnt = [*part.chosen.trainable_counts(), *part.rejected.trainable_counts()]
    single = [*part.chosen.lengths(), *part.rejected.lengths()]
    steps, per_epoch, evaluations, checkpoints = 0, 0, 0, 0
    if lengths:
        schedule = Schedule(part, config.train, config.data.max_length, config.seed)
        steps, per_epoch = schedule.total, schedule.steps_per_epoch
        checkpoints = -(-steps // schedule.checkpoint_every)
        evaluations = -(-steps // schedule.evaluate_every) if len(data.validation) else 0
    widest = _widest(config, lengths)
    return Workload(
        examples=len(lengths),
        tokens=sum(lengths),
        learnt=sum(learnt),
        longest=max(single, default=0),
        validation_tokens=sum(pair_lengths(data.validation)),
        steps=steps,
        steps_per_epoch=per_epoch,
        evaluations=evaluations,
        checkpoints=checkpoints,
        widest=widest,
        widest_learnt=min(widest, sum(learnt)),
        reference_passes=1 if config.train.method == "dpo" else 0,
    )


def _widest(config: FinetuneConfig, lengths: list[int]) -> int:
    """Whatever the order: full packs, or the longest examples together."""
    train = config.train
    if train.packing and train.method == "sft":
        return min(sum(lengths), train.batch_size * config.data.max_length)
    return sum(islice(sorted(lengths, reverse=True), train.batch_size))
