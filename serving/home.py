"""Where corral keeps its state: `$CORRAL_HOME`, by default `~/.corral`.

models/       prepared model weights          adapters/  <name>/<version>/ PEFT directories
store/        database and blobs
index/        passages of vector stores, and what of each file is in it
runs/         fine-tuning runs                 finetuning/ their inputs and logs, by job
run/          sockets, state of the running stack          logs/      log files
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Home:
    """The state directory and the places in it. Nothing is created by reading them."""

    root: Path

    @staticmethod
    def from_env() -> Home:
        """`$CORRAL_HOME`, or `~/.corral` when it is unset or empty."""
        configured = os.environ.get("CORRAL_HOME")
        return Home(Path(configured or "~/.corral").expanduser().absolute())

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def adapters(self) -> Path:
        return self.root / "adapters"

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def finetuning(self) -> Path:
        return self.root / "finetuning"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def logs(self) -> Path:
        return self.root / "logs"
