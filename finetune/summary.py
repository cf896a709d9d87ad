"""`summary.json`: what became of a run. Loads nothing heavy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from configs import StrictModel
from finetune.run_folder import write_whole

SUMMARY = "summary.json"


class RunError(StrictModel):
    """Why a run did not succeed."""

    code: str
    """What kind: `bad_data`, `bad_config`, `does_not_fit`, `model_unavailable`, `crashed`, …"""
    message: str
    """Cause and mend."""
    param: str | None = None
    """The setting that it is about."""


class Gate(StrictModel):
    """Whether the adapter may go live."""

    passed: bool
    """False where anything asked for was missed, missing or NaN."""
    reasons: tuple[str, ...] = ()
    """What was missed, each in one line."""


class Summary(StrictModel):
    """A run in numbers. None is what was not measured."""

    status: Literal["running", "succeeded", "failed", "interrupted"]
    """How it stands or ended."""
    error: RunError | None = None
    """Of a failed run."""
    steps: int = 0
    """Updates of the adapter."""
    best_step: int | None = None
    """Whose adapter was exported."""
    metrics: dict[str, float | None] = Field(default_factory=dict)
    """The last losses and accuracies, by their names in events."""
    trained_tokens: int = 0
    """Tokens that went through training, prompts included, every epoch counted."""
    learnt_tokens: int = 0
    """Of those, the ones in the loss."""
    tokens_per_second: float | None = None
    """Real tokens, without padding, over the time of the training steps alone."""
    padding_waste: float | None = None
    """Share of computed positions that held padding."""
    packing_efficiency: float | None = None
    """Share of the sequences' capacity (packs × `data.max_length`) that held tokens."""
    mfu: float | None = None
    """Model FLOP/s utilisation, as a share of the device's peak; None where that is unknown."""
    peak_memory_bytes: int | None = None
    """Of the GPU, or of the process on a CPU."""
    precision: str | None = None
    """bf16, fp32 or nf4."""
    precision_reason: str | None = None
    """Why."""
    data_hash: str | None = None
    """Content hash of the data (`Checked.version`)."""
    base_revision: str | None = None
    """Revision of the base model, or the hash of its weights' files."""
    code_version: str | None = None
    """Versions of the packages that did the work."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Of each package."""
    seconds: dict[str, float] = Field(default_factory=dict)
    """By phase: check, load, train, evaluate, export."""
    gate: Gate | None = None
    """None where nothing was evaluated."""
    mlflow_run: str | None = None
    """Id of the run in MLflow."""


def save_summary(folder: Path, summary: Summary) -> None:
    """Write `summary.json`, whole."""
    text = json.dumps(summary.model_dump(mode="json"), indent=2, ensure_ascii=False)
    write_whole(folder / SUMMARY, f"{text}\n")


def load_summary(folder: Path) -> Summary | None:
    """The summary of a run's folder; None before there is one, or if it cannot be read."""
    try:
        found: Any = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        return Summary.model_validate(found)
    except (OSError, ValueError):
        return None
