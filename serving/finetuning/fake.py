"""A trainer that goes through the motions: `python -m serving.finetuning.fake run …`.

Deterministic, without a model: it reads the data, takes a step every `FAKE_STEP_S` seconds (an
environment variable, by default 0.02), writes checkpoints and events as the real one does, and
an adapter of a few bytes. For the stack's own tests, and to try the API on any machine.

What it does beside that is asked for in the data: a row whose text holds `fake:refuse` makes it
refuse the data, `fake:gate` makes the gate fail, `fake:crash` makes it die in the middle once.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from configs import load
from finetune.config import FinetuneConfig
from finetune.events import EventLog
from finetune.run_folder import RunFolder, write_whole
from finetune.summary import Gate, RunError, Summary, load_summary, save_summary

STEP_ENV = "FAKE_STEP_S"
INTERRUPTED = 75
_RANK = 4


class _Run:
    def __init__(self, config: FinetuneConfig, folder: RunFolder) -> None:
        self._config = config
        self._folder = folder
        self._log = EventLog(folder.path)
        self._told = False
        self._text = "".join(
            Path(source.path).read_text(encoding="utf-8") for source in config.data.train
        )

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Told to end: after the step that is under way."""
        self._told = True

    def run(self) -> int:
        """Exit status as the contract has it."""
        self._log.state("validating")
        if "fake:refuse" in self._text:
            return self._refuse()
        self._log.state("running")
        rows = len(self._text.splitlines())
        train = self._config.train
        per_step = train.batch_size * train.accumulation
        total = train.max_steps or max(1, int(train.epochs * rows / per_step))
        every = train.checkpoint_every or max(1, int(rows / per_step))
        step = max(self._folder.steps(), default=0)
        while step < total:
            if self._told:
                self._checkpoint(step)
                self._log.state("interrupted")
                save_summary(self._folder.path, Summary(status="interrupted", steps=step))
                return INTERRUPTED
            time.sleep(float(os.environ.get(STEP_ENV, "0.02")))
            step += 1
            self._metrics(step, total)
            if step % every == 0 or step == total:
                self._checkpoint(step)
            if "fake:crash" in self._text and step == total // 2 + 1:
                self._crash_once()
        return self._finish(step, total)

    def _metrics(self, step: int, total: int) -> None:
        pace = float(os.environ.get(STEP_ENV, "0.02"))
        data = {
            "step": step, "total_steps": total, "train_loss": loss(step),
            "train_mean_token_accuracy": accuracy(step), "valid_loss": loss(step) + 0.1,
            "learning_rate": self._config.train.learning_rate, "eta_s": (total - step) * pace,
            "tokens_per_second": 1000.0, "peak_memory_bytes": 1 << 20,
        }  # fmt: skip
        self._log.emit("metrics", f"Step {step}/{total}: training loss={loss(step):.2f}", data)

    def _checkpoint(self, step: int) -> None:
        target = self._folder.checkpoint(step)
        if step == 0 or target.exists():
            return
        partial = target.with_name(f".{target.name}.part")
        write_adapter(partial / "adapter", self._base, step)
        partial.rename(target)
        path = str(target.relative_to(self._folder.path))
        metrics = {"train_loss": loss(step), "valid_loss": loss(step) + 0.1}
        data = {"step": step, "path": path, "metrics": metrics}
        self._log.emit("checkpoint", f"Checkpoint created at step {step}", data)

    @property
    def _base(self) -> str:
        return self._config.serve.base or self._config.model

    def _refuse(self) -> int:
        error = RunError(code="bad_data", message="row 1: fake:refuse", param="training_file")
        save_summary(self._folder.path, Summary(status="failed", error=error))
        self._log.state("failed", error.model_dump())
        return 1

    def _crash_once(self) -> None:
        mark = self._folder.path / "crashed"
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def _finish(self, step: int, total: int) -> int:
        self._log.state("evaluating")
        passed = "fake:gate" not in self._text
        gate = Gate(passed=passed, reasons=() if passed else ("max_loss_over_base: missed",))
        self._log.state("exporting")
        if not self._folder.adapter.exists():
            partial = self._folder.path / ".adapter.part"
            write_adapter(partial, self._base, step)
            partial.rename(self._folder.adapter)
        rows = [f"{n},{loss(n)},{accuracy(n)},,\n" for n in range(1, total + 1)]
        head = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n"
        write_whole(self._folder.path / "result.csv", head + "".join(rows))
        summary = Summary(
            status="succeeded", steps=step, gate=gate, trained_tokens=100 * step,
            metrics={"train_loss": loss(step)}, data_hash="fake",
        )  # fmt: skip
        save_summary(self._folder.path, summary)
        self._log.state("succeeded")
        return 0


def loss(step: int) -> float:
    """What the curve says at a step, whenever and wherever it is taken."""
    return round(4.0 / (1 + step), 6)


def accuracy(step: int) -> float:
    """The same of the accuracy."""
    return round(1 - loss(step) / 4, 6)


def write_adapter(folder: Path, base: str, seed: int) -> None:
    """The smallest adapter that the stack's checks let pass."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "peft_type": "LORA", "base_model_name_or_path": base, "r": _RANK, "lora_alpha": 8,
        "target_modules": ["q_proj"],
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    size = 4 * _RANK * _RANK
    header = {
        f"base_model.model.model.layers.0.self_attn.q_proj.lora_{side}.weight": {
            "dtype": "F32", "shape": [_RANK, _RANK], "data_offsets": [at, at + size],
        }
        for side, at in (("A", 0), ("B", size))
    }  # fmt: skip
    encoded = json.dumps(header).encode()
    body = bytes((seed % 60, 0, 0, 0x3F)) * (size // 2)
    data = len(encoded).to_bytes(8, "little") + encoded + body
    (folder / "adapter_model.safetensors").write_bytes(data)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 refused, 75 interrupted with a checkpoint."""
    parser = argparse.ArgumentParser("python -m serving.finetuning.fake")
    parser.add_argument("command", choices=["run"])
    parser.add_argument("--config", required=True, type=Path)
    parser.add_argument("--run", required=True, type=Path)
    args = parser.parse_args(argv)
    config, folder = load(FinetuneConfig, args.config), RunFolder(args.run)
    folder.start(config)
    with folder.locked():
        summary = load_summary(folder.path)
        if summary is not None and summary.status == "succeeded":
            return 0
        run = _Run(config, folder)
        signal.signal(signal.SIGTERM, run.on_signal)
        return run.run()


if __name__ == "__main__":
    sys.exit(main())
