"""A fine-tuning job as it stands, what was asked for, and how a trainer's work on it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal[
    "validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"
]
WAITING = ("validating_files", "queued", "running")
"""Something will still be done for these without anybody's asking."""
OPEN = (*WAITING, "paused")


@dataclass(frozen=True)
class JobSpec:
    """What somebody asked for."""

    tenant_id: str
    model: str
    """Name of the served base model."""
    method: Mapping[str, Any]
    """OpenAI's: `{"type": "supervised", "supervised": {"hyperparameters": {…}}}`."""
    training_file: str
    validation_file: str | None = None
    suffix: str | None = None
    seed: int = 0
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Job(JobSpec):
    """A job as it stands. Times are microseconds since 1970."""

    id: str = ""
    key_id: str = ""
    created_us: int = 0
    status: Status = "validating_files"
    error: Mapping[str, Any] | None = None
    finished_us: int | None = None
    estimated_us: int | None = None
    trained_tokens: int | None = None
    result_file: str | None = None
    fine_tuned_model: str | None = None
    """Set once it may be used."""
    adapter: str | None = None
    """Name and version of what it makes, in the adapters' folder."""
    version: str | None = None
    attempt: int = 0
    crashes: int = 0
    lease_until_us: int | None = None
    events_offset: int = 0

    @property
    def name(self) -> str:
        """What the trained model is called: `ft:<base>:<tenant>:<suffix>:<id>`."""
        return f"ft:{self.model}:{self.tenant_id}:{self.suffix or ''}:{self.short_id}"

    @property
    def short_id(self) -> str:
        """The end of the id, in the model's name."""
        return self.id[-10:]

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be done for it."""
        return self.status not in OPEN

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Of its method; some may be "auto"."""
        kind: str = self.method["type"]
        return dict((self.method.get(kind) or {}).get("hyperparameters") or {})


@dataclass(frozen=True)
class Outcome:
    """How a trainer's work on a job ended."""

    status: Status
    message: str
    error: Mapping[str, Any] | None = None
    trained_tokens: int | None = None
    result_file: str | None = None
    fine_tuned_model: str | None = None
