"""The rate of a few real steps: a run of its own, in a child process and a passing folder."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from finetune.config import FinetuneConfig
from finetune.errors import FinetuneError
from finetune.plan.speed import Rate
from finetune.run_folder import dump
from finetune.summary import load_summary

STEPS = 4


@dataclass(frozen=True)
class Measured:
    """By a run of a few steps."""

    rate: Rate
    peak_memory_bytes: int | None
    precision: str | None


def measure(config: FinetuneConfig) -> Measured:
    """Train `STEPS` steps of `config` and read the summary. Raises FinetuneError if that fails."""
    values = config.model_dump(mode="json")
    values["train"] |= {"max_steps": STEPS}
    values["evaluation"] |= {"enabled": False}
    values["tracking"] |= {"enabled": False}
    short = FinetuneConfig.model_validate(values)
    with tempfile.TemporaryDirectory(prefix="corral-measure-") as name:
        file, folder = Path(name, "config.yaml"), Path(name, "run")
        file.write_text(dump(short), encoding="utf-8")
        command = [sys.executable, "-m", "finetune", "run", "--config", str(file)]
        done = subprocess.run([*command, "--run", str(folder)], capture_output=True, text=True)
        summary = load_summary(folder)
    if done.returncode or summary is None or not summary.tokens_per_second:
        error = summary.error.message if summary and summary.error else done.stderr.strip()
        raise FinetuneError(f"the measuring run failed: {error[-2000:]}")
    per_worker = summary.tokens_per_second / config.train.workers
    source = f"{summary.steps} real steps just now, the first, slower one included"
    return Measured(Rate(per_worker, source), summary.peak_memory_bytes, summary.precision)
