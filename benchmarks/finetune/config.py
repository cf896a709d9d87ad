"""`FinetuneBenchConfig`: which trainings are compared."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from configs import StrictModel

__all__ = ["Case", "FinetuneBenchConfig"]


class Case(StrictModel):
    """One training, by both sides."""

    name: str
    """What it is called in the table."""
    device: Literal["cpu", "gpu"] = "cpu"
    """On a machine without one, the row of a `gpu` case says that it was not run."""
    model: str = "smollm2-135m"
    """Folder, or name of a prepared model; `random-8b` is Llama 3.1 8B's shape with random
    weights, written into the working folder."""
    precision: Literal["fp32", "bf16", "nf4"] = "fp32"
    max_length: int = Field(512, ge=2)
    """Tokens of a pack."""
    batch_size: int = Field(1, ge=1)
    """Packs at once."""
    accumulation: int = Field(1, ge=1)
    steps: int = Field(8, ge=2)
    gradient_checkpointing: bool = False
    rows: int = Field(160, ge=10)
    """Conversations of training data."""
    bar_tokens_per_second: float | None = None
    """What our side must reach."""


class FinetuneBenchConfig(StrictModel):
    """One comparison."""

    cases: tuple[Case, ...]
    rounds: int = Field(2, ge=1)
    """Times that each side runs each case, one after the other."""
    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    learning_rate: float = Field(5e-4, gt=0)
    seed: int = 0
    skip_steps: int = Field(1, ge=0)
    """First steps of a run whose time does not count: what is made once."""
    bar: float = 1.0
    """Share of TRL's tokens a second that ours must reach."""
    timeout_s: float = 900.0
    """For one training."""
