"""What `/v1/fine_tuning/jobs` takes and gives, in OpenAI's terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from serving.store.job_events import Checkpoint, JobEvent
from serving.store.jobs import Job


class _Asked(BaseModel):
    model_config = ConfigDict(
        extra="forbid", use_attribute_docstrings=True, protected_namespaces=()
    )


_Text64 = Annotated[str, Field(max_length=64)]
_Text512 = Annotated[str, Field(max_length=512)]


def _or_auto(kind: str) -> tuple[BeforeValidator, WithJsonSchema]:
    """ "auto" is as good as nothing; said so, faults of a number are told of the number."""
    any_of = [{"enum": ["auto"]}, {"type": kind}, {"type": "null"}]
    return BeforeValidator(lambda v: None if v == "auto" else v), WithJsonSchema({"anyOf": any_of})


_IntOrNone = Annotated[int | None, *_or_auto("integer")]
_FloatOrNone = Annotated[float | None, *_or_auto("number")]


class SupervisedSettings(_Asked):
    """How supervised training goes; `auto` is the stack's own default."""

    n_epochs: _IntOrNone = Field(None, ge=1, le=1000)
    """Times that the training data is gone through."""
    batch_size: _IntOrNone = Field(None, ge=1, le=4096)
    """Examples of one step."""
    learning_rate_multiplier: _FloatOrNone = Field(None, gt=0, le=100)
    """Multiplies the default learning rate."""


class DpoSettings(SupervisedSettings):
    """How direct preference optimisation goes."""

    beta: _FloatOrNone = Field(None, gt=0, le=2)
    """The larger, the closer the result stays to the base model."""


class Supervised(_Asked):
    """Supervised training."""

    hyperparameters: SupervisedSettings = SupervisedSettings()


class Dpo(_Asked):
    """Direct preference optimisation."""

    hyperparameters: DpoSettings = DpoSettings()


class Method(_Asked):
    """How to train."""

    type: Literal["supervised", "dpo", "reinforcement"] = "supervised"
    supervised: Supervised | None = None
    dpo: Dpo | None = None
    reinforcement: dict[str, Any] | None = None
    """Not done here."""


class JobRequest(_Asked):
    """A job to be made."""

    model: str = Field(min_length=1, max_length=256)
    """The base model."""
    training_file: str = Field(max_length=64)
    """Id of an uploaded file with purpose `fine-tune`."""
    validation_file: str | None = Field(None, max_length=64)
    """Id of a file that is held out. Without it a part of the training file is."""
    suffix: str | None = Field(None, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Part of the trained model's name. Jobs with the same one make versions of one adapter."""
    seed: int | None = Field(None, ge=0, lt=2**31)
    """Decides everything random."""
    metadata: dict[_Text64, _Text512] | None = Field(None, max_length=16)
    """Anything; jobs can be listed by it."""
    method: Method | None = None
    """How to train; supervised if it is not said."""
    hyperparameters: SupervisedSettings | None = None
    """The older place for those of supervised training."""
    integrations: list[dict[str, Any]] | None = Field(None, max_length=16)
    """None are offered: runs are tracked by the stack."""


class JobError(BaseModel):
    """Why a job failed."""

    code: str
    message: str
    param: str | None


class JobView(BaseModel):
    """A fine-tuning job."""

    id: str
    object: Literal["fine_tuning.job"]
    created_at: int
    error: JobError | None
    fine_tuned_model: str | None
    finished_at: int | None
    hyperparameters: dict[str, Any]
    model: str
    organization_id: str
    result_files: list[str]
    seed: int
    status: str
    trained_tokens: int | None
    training_file: str
    validation_file: str | None
    estimated_finish: int | None
    integrations: list[dict[str, Any]]
    metadata: dict[str, str] | None
    method: dict[str, Any]


class JobList(BaseModel):
    """Jobs, the newest first."""

    object: Literal["list"]
    data: list[JobView]
    has_more: bool


class EventView(BaseModel):
    """Something that happened in a job."""

    id: str
    object: Literal["fine_tuning.job.event"]
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any] | None


class EventList(BaseModel):
    """Events, the newest first."""

    object: Literal["list"]
    data: list[EventView]
    has_more: bool


class CheckpointView(BaseModel):
    """A step of a job whose model can be used."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"]
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    metrics: dict[str, Any]
    step_number: int


class CheckpointList(BaseModel):
    """Checkpoints, the newest first."""

    object: Literal["list"]
    data: list[CheckpointView]
    has_more: bool
    first_id: str | None
    last_id: str | None


def job_view(job: Job) -> dict[str, Any]:
    """OpenAI's job object."""
    kind = job.method["type"]
    return {
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": _seconds(job.created_us),
        "error": job.error,
        "fine_tuned_model": job.fine_tuned_model,
        "finished_at": _seconds(job.finished_us),
        "hyperparameters": job.hyperparameters if kind == "supervised" else {},
        "model": job.model,
        "organization_id": job.tenant_id,
        "result_files": [] if job.result_file is None else [job.result_file],
        "seed": job.seed,
        "status": job.status,
        "trained_tokens": job.trained_tokens,
        "training_file": job.training_file,
        "validation_file": job.validation_file,
        "estimated_finish": _seconds(job.estimated_us),
        "integrations": [],
        "metadata": job.metadata,
        "method": job.method,
    }


def event_view(event: JobEvent) -> dict[str, Any]:
    """OpenAI's event object."""
    return {
        "id": event.id,
        "object": "fine_tuning.job.event",
        "created_at": _seconds(event.at_us),
        "level": event.level,
        "message": event.message,
        "type": event.type,
        "data": event.data or {},
    }


def checkpoint_view(checkpoint: Checkpoint) -> dict[str, Any]:
    """OpenAI's checkpoint object."""
    return {
        "id": checkpoint.id,
        "object": "fine_tuning.job.checkpoint",
        "created_at": _seconds(checkpoint.at_us),
        "fine_tuned_model_checkpoint": checkpoint.name,
        "fine_tuning_job_id": checkpoint.job_id,
        "metrics": checkpoint.metrics,
        "step_number": checkpoint.step,
    }


def metadata_filter(query: Mapping[str, str]) -> dict[str, str]:
    """`metadata[key]=value` of a query string."""
    return {
        name[9:-1]: value
        for name, value in query.items()
        if name.startswith("metadata[") and name.endswith("]")
    }


def _seconds(at_us: int | None) -> int | None:
    return None if at_us is None else at_us // 1_000_000
