"""`FinetuneConfig`: one fine-tuning run, one YAML file in `configs/finetune/`."""

from __future__ import annotations

from pydantic import Field, model_validator

from configs import StrictModel
from finetune.config.data import DataConfig, FileSource, Format, HubSource, SourceConfig
from finetune.config.evaluation import EvaluationConfig, GateConfig
from finetune.config.sweep import Range, SweepConfig
from finetune.config.training import (
    EarlyStoppingConfig,
    LoraConfig,
    Precision,
    QuantisationConfig,
    TrainConfig,
)

__all__ = [
    "CostConfig",
    "DataConfig",
    "EarlyStoppingConfig",
    "EvaluationConfig",
    "FileSource",
    "FinetuneConfig",
    "Format",
    "GateConfig",
    "HubSource",
    "LoraConfig",
    "Precision",
    "QuantisationConfig",
    "Range",
    "ServeConfig",
    "SourceConfig",
    "SweepConfig",
    "TrackingConfig",
    "TrainConfig",
]


class ServeConfig(StrictModel):
    """What the server that is to load the adapter can load. More is refused before the start."""

    max_rank: int = Field(64, ge=1)
    """The server's `engine.lora.max_rank`."""
    base: str | None = None
    """The base model's name as the server knows it, written into the adapter. By default `model`
    if that is a name, or the folder's absolute path."""


class TrackingConfig(StrictModel):
    """MLflow: where parameters, curves and artefacts of the run go."""

    enabled: bool = True
    """Off records nothing but the run's folder."""
    mlflow: str | None = None
    """URI of a tracking server or store; by default a SQLite file in `$CORRAL_HOME`."""
    experiment: str = Field("finetune", min_length=1)
    """Runs under one name are compared with each other."""


class CostConfig(StrictModel):
    """Prices, for the estimate before the start."""

    usd_per_gpu_hour: float | None = Field(None, ge=0)
    """US dollars for one GPU and hour. Without it no cost is estimated."""


class FinetuneConfig(StrictModel):
    """One run."""

    model: str = Field(min_length=1)
    """The base model: a folder, or the name of a prepared one in `$CORRAL_HOME/models/`."""
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """What the run's folder is called, with a number after it; by default the model's name."""
    seed: int = Field(0, ge=0, lt=2**64)
    """Decides the adapter's first weights, the order of the examples and dropout. The split does
    not depend on it. Two runs with one seed on one machine give the same adapter."""
    data: DataConfig = DataConfig()
    """What to learn from."""
    lora: LoraConfig = LoraConfig()
    """The adapter's size and place."""
    precision: Precision = "auto"
    """Of the base model's weights and of the arithmetic. `fp32` for CPUs, `bf16` for GPUs with
    memory for the weights, `nf4` (QLoRA: 4 bits a weight) for those without. `auto` picks."""
    quantisation: QuantisationConfig = QuantisationConfig()
    """Details of `nf4`."""
    train: TrainConfig = TrainConfig()
    """How it is learnt."""
    serve: ServeConfig = ServeConfig()
    """What the server can load."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """What the adapter is measured by, and the gate in front of the server."""
    tracking: TrackingConfig = TrackingConfig()
    """MLflow."""
    cost: CostConfig = CostConfig()
    """Prices."""
    sweep: SweepConfig = SweepConfig()
    """Which settings a search tries; a single run passes over it."""

    @property
    def run_name(self) -> str:
        """The stem of the run folder's name."""
        return self.name or self.model.rstrip("/").rpartition("/")[2] or "run"

    @model_validator(mode="after")
    def _servable(self) -> FinetuneConfig:
        if self.lora.rank > self.serve.max_rank:
            raise ValueError(
                f"lora.rank {self.lora.rank} is more than the server loads (serve.max_rank "
                f"{self.serve.max_rank}): lower it, or raise engine.lora.max_rank of the server "
                "and serve.max_rank here"
            )
        return self
