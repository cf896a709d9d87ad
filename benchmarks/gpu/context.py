"""What a step is given: the model's place, running engines, the ceilings, a place for results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu.limits import Card, Shape
from benchmarks.sides import Side, SideConfig

__all__ = ["Address", "Context", "Missing", "Model", "StepFailed"]


class StepFailed(RuntimeError):
    """A step measured what nobody should believe; the message says what went wrong."""


class Missing(RuntimeError):
    """This machine lacks what the step needs; the message says what, and how to get it."""


@dataclass(frozen=True)
class Model:
    """A model directory. Ids from `first_id` to `last_id` are safe in prompts of token ids."""

    name: str
    path: str
    config: dict[str, Any]
    first_id: int
    last_id: int

    @property
    def shape(self) -> Shape:
        return Shape.from_config(self.config)


@dataclass(frozen=True)
class Address:
    """A running engine."""

    name: str
    side: str
    """Which of the engine's ways to start it came up."""
    url: str
    model: str
    home: str
    """Its `$CORRAL_HOME`."""

    @property
    def headers(self) -> dict[str, str]:
        """What a client sends along: corral's key. vLLM's own server does not look at it."""
        return self.as_side().headers

    def as_side(self) -> Side:
        """For the load client."""
        credentials = str(Path(self.home) / "credentials")
        config = SideConfig(name=self.name, url=self.url, model=self.model, credentials=credentials)
        side = Side(config, self.url)
        side.model = self.model
        return side


@dataclass(frozen=True)
class Context:
    """One run of one step."""

    out: Path
    model: Model
    card: Card
    engines: tuple[Address, ...] = ()
    partial: Mapping[str, Any] = field(default_factory=dict)
    """What an earlier run of this very step had found when it was stopped."""
    save: Callable[[dict[str, Any]], None] = lambda _: None
    """Keeps a partial result, in case this run does not end."""

    @staticmethod
    def from_task(task: Mapping[str, Any], save: Callable[[dict[str, Any]], None]) -> Context:
        """The inverse of `as_task`."""
        return Context(
            out=Path(task["out"]),
            model=Model(**task["model"]),
            card=Card(**task["card"]),
            engines=tuple(Address(**engine) for engine in task["engines"]),
            partial=task["partial"],
            save=save,
        )

    def as_task(self) -> dict[str, Any]:
        """As JSON can carry it to the step's process."""
        return {
            "out": str(self.out),
            "model": asdict(self.model),
            "card": asdict(self.card),
            "engines": [asdict(engine) for engine in self.engines],
            "partial": dict(self.partial),
        }

    def say(self, text: str) -> None:
        """A line of progress, in the step's log."""
        print(text, flush=True)
