"""The space that `python -m finetune sweep` searches."""

from __future__ import annotations

from pydantic import Field, model_validator

from configs import StrictModel


class Range(StrictModel):
    """Values that one setting may take: a list of choices, or an interval."""

    choices: tuple[bool | int | float | str, ...] = ()
    """One of these; or else `low` to `high`."""
    low: float | None = None
    """The least value."""
    high: float | None = None
    """The greatest."""
    log: bool = False
    """Equal chances for equal ratios; for learning rates."""
    whole: bool = False
    """Whole numbers only."""

    @model_validator(mode="after")
    def _one_kind(self) -> Range:
        interval = self.low is not None and self.high is not None
        if interval == bool(self.choices):
            raise ValueError("give either choices, or low and high")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if self.log and (self.low is None or self.low <= 0):
            raise ValueError("log needs a low above 0")
        return self


class SweepConfig(StrictModel):
    """A search for better settings: several runs, compared by validation loss."""

    space: dict[str, Range] = Field(default_factory=dict)
    """Settings by their dotted path, such as `train.learning_rate`."""
    trials: int = Field(10, ge=1)
    """Runs."""
    prune: bool = True
    """Stop runs that do worse than the median of the others at the same step."""
