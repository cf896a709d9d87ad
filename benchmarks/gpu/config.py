"""`GpuConfig`: the model, the engines and the steps of one measurement, most valuable first."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from benchmarks.gpu.model import ModelConfig
from benchmarks.gpu.steps.adapters import AdaptersConfig
from benchmarks.gpu.steps.ceilings import CeilingsConfig
from benchmarks.gpu.steps.client import ClientConfig
from benchmarks.gpu.steps.cold_start import ColdStartConfig
from benchmarks.gpu.steps.embeddings import EmbeddingsConfig
from benchmarks.gpu.steps.prefix_cache import PrefixConfig
from benchmarks.gpu.steps.serving import ServingConfig
from benchmarks.gpu.steps.sleep import SleepConfig
from benchmarks.gpu.steps.training import TrainingConfig
from benchmarks.gpu.steps.tuning import BestConfig, VariantConfig
from configs import StrictModel

__all__ = ["CardConfig", "EngineConfig", "GpuConfig", "RunConfig", "StepConfig"]

RunConfig = Annotated[
    CeilingsConfig
    | ClientConfig
    | ServingConfig
    | AdaptersConfig
    | TrainingConfig
    | PrefixConfig
    | SleepConfig
    | ColdStartConfig
    | EmbeddingsConfig
    | VariantConfig
    | BestConfig,
    Field(discriminator="kind"),
]


class CardConfig(StrictModel):
    """Ceilings to use until the step `ceilings` has measured them; results say which it was."""

    gb_s: float = Field(4300.0, gt=0)
    tflop_s: float = Field(790.0, gt=0)


class EngineConfig(StrictModel):
    """Something that answers the OpenAI API."""

    kind: Literal["corral", "vllm", "command"]
    """corral's stack (without Ray where Ray cannot start), vLLM's own server with the same
    flags, or any command."""
    serve_config: str = ""
    """A file in `configs/serve/`; its first model's engine is what is started."""
    engine: dict[str, Any] = Field(default_factory=dict)
    """Overrides of that engine's fields."""
    options: dict[str, Any] = Field(default_factory=dict)
    """More overrides of corral's configuration (`models.0.replicas.num_gpus: 0`)."""
    flags: tuple[str, ...] = ()
    """More options of vLLM's server."""
    command: tuple[str, ...] = ()
    """As in `benchmarks.sides.SideConfig`."""
    env: dict[str, str] = Field(default_factory=dict)
    model: str = ""
    """What requests call the model; by default the measured one's name."""
    own_model: bool = False
    """Serve the file's own model instead of the measured one."""
    encoder: int | None = None
    """Index of a model in the file that is served as a random MiniLM, written on the spot."""
    expect_s: float = Field(60.0, gt=0)
    """What its start usually takes."""
    start_timeout_s: float = Field(300.0, gt=0)


class StepConfig(StrictModel):
    """One step."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    run: RunConfig
    engines: tuple[str, ...] = ()
    """Engines it talks to. The last step's engines run on where they are named again; all
    others are ended before, so that the card's memory is free."""
    expect_s: float = Field(30.0, gt=0)
    """What it usually takes, once its engines run; with less time left than for these and that
    it is not begun."""
    limit_s: float = Field(120.0, gt=0)
    """After this long it is killed, the start of its engines not counted."""


class GpuConfig(StrictModel):
    """One measurement."""

    model: ModelConfig
    card: CardConfig = CardConfig()
    engines: dict[str, EngineConfig] = Field(default_factory=dict)
    steps: tuple[StepConfig, ...] = Field(min_length=1)
    rehearsal: bool = False
    """Only shows that every step runs; pages never show such results."""

    @model_validator(mode="after")
    def _consistent(self) -> GpuConfig:
        names = [step.name for step in self.steps]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"step names must differ; used twice: {', '.join(sorted(twice))}")
        for step in self.steps:
            if unknown := set(step.engines) - set(self.engines):
                raise ValueError(f"step {step.name}: no engine called {', '.join(sorted(unknown))}")
        return self
