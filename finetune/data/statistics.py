"""Token statistics of tokenised data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finetune.data.packing import plan_packs
from finetune.data.tokenise import TokenisedPart


@dataclass(frozen=True)
class Lengths:
    """Distribution of tokens an example; percentiles are the nearest rank, so values that occur."""

    min: int
    mean: float
    p50: int
    p95: int
    max: int

    @staticmethod
    def of(values: Sequence[int]) -> Lengths:
        """Of at least one value."""
        ranked = sorted(values)
        count = len(ranked)
        return Lengths(
            min=ranked[0],
            mean=sum(ranked) / count,
            p50=ranked[-(-count * 50 // 100) - 1],
            p95=ranked[-(-count * 95 // 100) - 1],
            max=ranked[-1],
        )


@dataclass(frozen=True)
class PartStatistics:
    """One part. For preferences an example's tokens are those of both answers with the prompt."""

    examples: int
    tokens: int
    trainable_tokens: int
    lengths: Lengths | None
    """None without examples."""
    packs: int
    """Sequences of `max_length` that hold all examples, packed; 0 for preferences."""
    packing_efficiency: float
    """Tokens over packs × `max_length`: 1 is no padding."""
    padding_efficiency: float
    """The same without packing, in one batch: tokens over examples × the longest."""

    @property
    def trainable_share(self) -> float:
        """Of all tokens, those that are learnt."""
        return self.trainable_tokens / self.tokens if self.tokens else 0.0


def statistics(part: TokenisedPart, max_length: int) -> PartStatistics:
    """Count what is in `part`."""
    lengths = part.chosen.lengths()
    trainable = part.chosen.trainable_counts()
    pairs = len(part.rejected) > 0
    if pairs:
        both = zip(lengths, part.rejected.lengths(), strict=True)
        lengths = [chosen + rejected for chosen, rejected in both]
        trainable += part.rejected.trainable_counts()
    total = sum(lengths)
    packs = 0 if pairs else len(plan_packs(lengths, max_length))
    return PartStatistics(
        examples=len(lengths),
        tokens=total,
        trainable_tokens=sum(trainable),
        lengths=Lengths.of(lengths) if lengths else None,
        packs=packs,
        packing_efficiency=total / (packs * max_length) if packs else 0.0,
        padding_efficiency=total / (len(lengths) * max(lengths)) if lengths else 0.0,
    )
