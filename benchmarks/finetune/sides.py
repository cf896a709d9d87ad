"""Runs one training of either side in a process of its own."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from benchmarks.finetune.config import Case, FinetuneBenchConfig

Side = Literal["ours", "trl"]


class SideFailed(RuntimeError):
    """A training ended with an error; the message has the end of its output."""


@dataclass(frozen=True)
class Figures:
    """Of one training."""

    side: Side
    tokens_per_second: float
    """Real tokens, over the steps after the first ones."""
    padding_waste: float
    packing_efficiency: float
    peak_memory_bytes: int
    trained_tokens: int
    valid_loss: float
    """Held out, after the last step; nats a token."""
    flops_per_token: float | None = None
    """Useful operations; known of ours, and of TRL the same since the data is."""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Job:
    """A case with its files."""

    case: Case
    config: FinetuneBenchConfig
    model: Path
    train: Path
    validation: Path

    def run(self, side: Side, folder: Path) -> Figures:
        """Train in the new folder. Raises SideFailed."""
        return self._ours(folder) if side == "ours" else self._trl(folder)

    def _ours(self, folder: Path) -> Figures:
        file = folder.with_suffix(".yaml")
        file.write_text(yaml.safe_dump(self._settings()), encoding="utf-8")
        command = ["-m", "finetune", "run", "--config", str(file), "--run", str(folder), "--json"]
        summary = self._call(command)
        events = [json.loads(line) for line in (folder / "events.jsonl").open(encoding="utf-8")]
        steps = [each["data"] for each in events if each["type"] == "metrics"]
        kept = steps[self.config.skip_steps :]
        # Steps of full packs are alike: the harmonic mean is tokens over time.
        speed = statistics.harmonic_mean([each["tokens_per_second"] for each in kept])
        return Figures(
            side="ours",
            tokens_per_second=speed,
            padding_waste=summary["padding_waste"],
            packing_efficiency=summary["packing_efficiency"],
            peak_memory_bytes=summary["peak_memory_bytes"],
            trained_tokens=summary["trained_tokens"],
            valid_loss=summary["metrics"]["full_valid_loss"],
            flops_per_token=summary["flops_per_second"] / summary["tokens_per_second"],
        )

    def _trl(self, folder: Path) -> Figures:
        case, config = self.case, self.config
        given = {
            **case.model_dump(),
            "model": str(self.model),
            "out": str(folder),
            "train": str(self.train),
            "validation": str(self.validation),
            "rank": config.rank,
            "alpha": config.alpha,
            "learning_rate": config.learning_rate,
            "seed": config.seed,
            "skip_steps": config.skip_steps,
        }
        file = folder.with_suffix(".json")
        file.write_text(json.dumps(given), encoding="utf-8")
        found = self._call(["-m", "benchmarks.finetune.plain_trl", str(file)])
        del found["train_loss"]
        return Figures(side="trl", **found)

    def _settings(self) -> dict[str, Any]:
        case, config = self.case, self.config
        return {
            "model": str(self.model),
            "seed": config.seed,
            "precision": case.precision,
            "data": {
                "train": [{"kind": "file", "path": str(self.train)}],
                "validation": [{"kind": "file", "path": str(self.validation)}],
                "max_length": case.max_length,
            },
            "lora": {"rank": config.rank, "alpha": config.alpha},
            "train": {
                "epochs": 1000,
                "max_steps": case.steps,
                "batch_size": case.batch_size,
                "accumulation": case.accumulation,
                "learning_rate": config.learning_rate,
                "schedule": "constant",
                "warmup": 0.0,
                "evaluate_every": case.steps,
                "checkpoint_every": case.steps,
                "packing": True,
                "gradient_checkpointing": case.gradient_checkpointing,
            },
            "evaluation": {"enabled": False},
            "tracking": {"enabled": False},
        }

    def _call(self, arguments: list[str]) -> dict[str, Any]:
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if self.case.device == "cpu" else {}
        return call(arguments, self.config.timeout_s, hidden)


def call(arguments: list[str], timeout_s: float, environment: dict[str, str]) -> dict[str, Any]:
    """Run Python with `arguments`; the JSON of its last line. Raises SideFailed."""
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired as exc:
        raise SideFailed(f"{' '.join(arguments)} took more than {timeout_s:g} s") from exc
    if done.returncode:
        raise SideFailed(
            f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr[-1500:]}"
        )
    lines = done.stdout.strip().splitlines()
    found: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return found
