"""What a trainer's side needs to know, in one picklable piece; and where its things lie."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from serving.adapters import AdapterStore
from serving.config import ServeConfig
from serving.home import Home


@dataclass(frozen=True)
class Settings:
    """Passed to whoever runs jobs, on whatever machine."""

    config: ServeConfig
    home: Home
    weights: dict[str, str] = field(default_factory=dict)
    """Prepared model directory by model name."""
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def adapters(self) -> AdapterStore:
        """The adapters' folder, with nothing remembered."""
        return AdapterStore(
            self.home, self.config.models, weights=self.weights, aliases=self.aliases
        )

    @property
    def threads(self) -> int:
        """Of a job's arithmetic."""
        return self.config.finetuning.threads or max(1, (os.cpu_count() or 1) // 2)

    def work(self, job_id: str) -> Workplace:
        """Where a job's things lie."""
        return Workplace(self.home.finetuning / job_id, self.home.runs / job_id)


@dataclass(frozen=True)
class Workplace:
    """The folders of one job."""

    folder: Path
    """Ours: inputs, log, lock."""
    run: Path
    """The trainer's."""

    @property
    def config(self) -> Path:
        """The run's settings as they are given to the trainer."""
        return self.folder / "config.yaml"

    @property
    def log(self) -> Path:
        """What the trainer prints."""
        return self.folder / "trainer.log"

    @property
    def lock(self) -> Path:
        """Held by the trainer's process for as long as it lives."""
        return self.folder / "lock"

    def data(self, part: str) -> Path:
        """The copy of `training` or `validation` data."""
        return self.folder / f"{part}_file"
