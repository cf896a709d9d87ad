"""A model that says what it is told to: metrics and reports can be tested without weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from finetune.data.tokenizer import ChatTokenizer, Encoded
from finetune.evaluation.model import Answer, Score, Version


@dataclass
class Scripted:
    """Answers by a function of version and prompt text; each version has one loss for all."""

    chat: ChatTokenizer
    answer: Callable[[Version, str], Answer]
    losses: dict[Version, float]

    def score(self, sequences: Sequence[Encoded], version: Version) -> list[Score]:
        counts = [sum(each.trainable) for each in sequences]
        return [Score(self.losses[version] * count, count) for count in counts]

    def generate(
        self, prompts: Sequence[Sequence[int]], version: Version, max_new_tokens: int
    ) -> list[Answer]:
        return [self.answer(version, self.chat.decode(list(each))) for each in prompts]
