"""The learning rate of each step. Loads no torch."""

from __future__ import annotations

import math

from finetune.config import TrainConfig


def learning_rate(train: TrainConfig, step: int, total: int) -> float:
    """Of step `step` (from 0) of `total`: rises over the warm-up, then falls to 0 at the end."""
    warm = math.ceil(train.warmup * total)
    if step < warm:
        return train.learning_rate * (step + 1) / (warm + 1)
    done = (step - warm) / max(1, total - warm)
    match train.schedule:
        case "constant":
            return train.learning_rate
        case "linear":
            return train.learning_rate * (1 - done)
        case "cosine":
            return train.learning_rate * (1 + math.cos(math.pi * done)) / 2
