"""What a stack is told of fine-tuning."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from configs import StrictModel


class FinetuningConfig(StrictModel):
    """Fine-tuning jobs: what they may take, and what becomes of their adapters."""

    enabled: bool = True
    """Accept jobs. Files can be stored in any case."""
    trainer: Literal["finetune", "fake"] = "finetune"
    """What trains: `python -m finetune`, or a program that only goes through the motions."""
    config: str | None = None
    """The run that every job begins from: a file, or a name in configs/finetune/. Unset, the one
    that is named as the base model is, else every default."""
    settings: dict[str, Any] = {}
    """Settings of every run by their dotted names, over those of `config`: `lora.rank: 8`."""
    max_parallel: int = Field(1, ge=1)
    """Jobs that train, or wait for hardware, at once; the others queue."""
    max_open_jobs: int = Field(16, ge=1)
    """Jobs that one tenant may have under way."""
    num_cpus: float = Field(0.5, ge=0)
    """CPUs of a node that Ray reserves for a job."""
    num_gpus: float = Field(0.0, ge=0)
    """GPUs that a job gets. More than the cluster has left makes it wait, and the cluster grow."""
    memory_gib: float = Field(0.0, ge=0)
    """Memory that Ray reserves for a job; 0 reserves none."""
    threads: int | None = Field(None, ge=1)
    """Threads of a job's arithmetic on a CPU; by default half of the cores."""
    nice: int = Field(10, ge=0, le=19)
    """How far a job steps back behind serving when both want a CPU."""
    share: Literal["none", "pause"] = "none"
    """`pause`: while a job trains, the engine of its base model sleeps and leaves it the GPU;
    requests wait. The engine needs vLLM's sleep mode, which a GPU has."""
    grace_s: float = Field(120.0, gt=0)
    """How long a job that is paused or cancelled may take to write its checkpoint."""
    lease_s: float = Field(30.0, gt=0)
    """A trainer that is silent for this long is dead, and its job is queued again."""
    poll_s: float = Field(0.5, gt=0)
    """How often jobs are looked after."""
    max_crashes: int = Field(3, ge=1)
    """Deaths of its trainer after which a job is given up."""
    promote: Literal["never", "first", "always"] = "first"
    """What passes its gate becomes live (champion): never by itself, when nothing else is, or
    always. What does not become live becomes the challenger."""


class FilesConfig(StrictModel):
    """Files that clients upload."""

    max_file_mib: float = Field(512.0, gt=0)
    """Larger ones are refused with 413."""
    max_tenant_gib: float = Field(16.0, gt=0)
    """What the files of one tenant may take together."""
