"""The steps of a run: update → metrics → validation → checkpoint, until the end or a stop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from finetune.config import FinetuneConfig
from finetune.data.tokenise import Tokenised
from finetune.errors import DoesNotFit, RunConflict, TrainingDiverged
from finetune.events import EventLog
from finetune.result import write_results
from finetune.run_folder import RunFolder
from finetune.stop import Stop
from finetune.train import checkpoint
from finetune.train.checkpoint import Progress
from finetune.train.meter import peak_flops, peak_memory_bytes, work_of
from finetune.train.model import Place
from finetune.train.rates import learning_rate
from finetune.train.schedule import Schedule, Step
from finetune.train.update import Update, Updater

_RECENT = 0.9
"""Weight of the past in the seconds a step that the time left is told from."""


@dataclass(frozen=True)
class Trained:
    """What the loop leaves behind."""

    progress: Progress
    total_steps: int
    interrupted: bool
    """Whether it was asked to stop; the last checkpoint is then where it goes on."""
    load_s: float
    """Seconds to load the model."""
    flops_per_s: float | None
    """Useful operations a second, of all workers."""
    mfu: float | None
    """The same as a share of the GPUs' peak; None where that is unknown."""
    packing_efficiency: float | None
    """Tokens over the capacity of the packs; None without packing."""
    peak_memory_bytes: int

    @property
    def chosen_step(self) -> int:
        """The best step by validation loss; without validation the last."""
        best = self.progress.best_step
        return self.progress.step if best is None else best


class Loop:
    """One worker's part of a run; alone, the whole."""

    def __init__(
        self, config: FinetuneConfig, folder: Path, place: Place, data: Tokenised, run: RunFolder
    ) -> None:
        self._config, self._run, self._data = config, run, data
        started = time.perf_counter()
        with _memory_explained(config):
            self.updater = Updater(config, folder, place, data)
        self._load_s = time.perf_counter() - started
        train = data.train
        self._schedule = Schedule(train, config.train, config.data.max_length, config.seed)
        self._lengths = [train.chosen.lengths(), train.rejected.lengths()]
        self._learnt = [train.chosen.trainable_counts(), train.rejected.trainable_counts()]
        self._work = work_of(self.updater.model)
        self._flops = self._seconds = 0.0
        self._pace: float | None = None
        self.progress = Progress(data_hash=data.version)

    def go(self, log: EventLog, stop: Stop) -> Trained:
        """Train from the last checkpoint, or from the start.

        Raises DoesNotFit, TrainingDiverged and RunConflict.
        """
        with _memory_explained(self._config):
            self._resume(log)
            self.updater.prepare()
            interrupted = self._steps(log, stop)
        progress, train = self.progress, self._config.train
        capacity = progress.sequences * self._config.data.max_length
        packed = train.packing and train.method == "sft" and capacity > 0
        flops = self._flops / self._seconds if self._seconds else None
        peak = peak_flops(self.updater.device)
        return Trained(
            progress=progress,
            total_steps=self._schedule.total,
            interrupted=interrupted,
            load_s=self._load_s,
            flops_per_s=flops,
            mfu=flops / (peak * train.workers) if flops and peak else None,
            packing_efficiency=progress.trained_tokens / capacity if packed else None,
            peak_memory_bytes=peak_memory_bytes(self.updater.device),
        )

    def _resume(self, log: EventLog) -> None:
        steps = self._run.steps()
        if not steps:
            return
        folder = self._run.checkpoint(steps[-1])
        self.progress = checkpoint.load_progress(folder)
        if self.progress.data_hash != self._data.version:
            raise RunConflict(
                f"the data changed since {folder} was written, so the run cannot go on from it: "
                "put the files back as they were, or start a new run"
            )
        checkpoint.load_checkpoint(folder, self.updater.model, self.updater.optimiser)
        if self.updater.is_first:
            log.emit("message", f"goes on after step {self.progress.step}")

    def _steps(self, log: EventLog, stop: Stop) -> bool:
        """Whether it was asked to stop before the end."""
        progress, schedule = self.progress, self._schedule
        while progress.step < schedule.total and not progress.stopped:
            metrics = self._step()
            done = progress.step
            at_end = done == schedule.total
            better = False
            if len(self._data.validation) and (at_end or done % schedule.evaluate_every == 0):
                better = self._validate(metrics)
            progress.history.append(metrics)
            if self.updater.is_first:
                log.emit("metrics", _line(metrics), metrics)
            asked = self.updater.any(stop.requested)
            over = at_end or progress.stopped
            if over or better or asked or done % schedule.checkpoint_every == 0:
                self._checkpoint(log, metrics)
            if asked and not over:
                return True
        return False

    def _step(self) -> dict[str, Any]:
        progress, index = self.progress, self.progress.step
        started = time.perf_counter()
        step = self._schedule.step(index)
        rate = learning_rate(self._config.train, index, self._schedule.total)
        found = self.updater.update(index, step, rate)
        seconds = time.perf_counter() - started
        if not math.isfinite(found.loss):
            raise TrainingDiverged(
                f"the loss of step {index + 1} is {found.loss}: lower train.learning_rate "
                f"({self._config.train.learning_rate:g}), or raise train.warmup"
            )
        tokens = self._count(step, seconds)
        progress.step += 1
        return self._metrics(found, rate, tokens / seconds)

    def _count(self, step: Step, seconds: float) -> int:
        """Tokens of the step."""
        examples = [example for micro in step.micro for example in micro]
        lengths = [each[i] for each in self._lengths if each for i in examples]
        learnt = sum(each[i] for each in self._learnt if each for i in examples)
        squares = sum(length**2 for length in lengths)
        tokens = sum(lengths)
        progress = self.progress
        progress.trained_tokens += tokens
        progress.learnt_tokens += learnt
        progress.sequences += step.sequences
        progress.seconds += seconds
        self._flops += self._work.flops(tokens, learnt, squares)
        self._seconds += seconds
        past = seconds if self._pace is None else self._pace
        self._pace = _RECENT * past + (1 - _RECENT) * seconds
        return tokens

    def _metrics(self, found: Update, rate: float, tokens_per_second: float) -> dict[str, Any]:
        done, total = self.progress.step, self._schedule.total
        return {
            "step": done,
            "total_steps": total,
            "epoch": round(done / self._schedule.steps_per_epoch, 4),
            "train_loss": found.loss,
            "train_mean_token_accuracy": found.accuracy,
            "learning_rate": rate,
            "gradient_norm": found.gradient,
            "tokens_per_second": tokens_per_second,
            "eta_s": (total - done) * (self._pace or 0.0),
            "peak_memory_bytes": peak_memory_bytes(self.updater.device),
        }

    def _validate(self, metrics: dict[str, Any]) -> bool:
        """Measure; whether it is the best so far."""
        found, progress = self.updater.validate(), self.progress
        metrics["valid_loss"] = metrics["full_valid_loss"] = found.loss
        metrics["valid_mean_token_accuracy"] = found.accuracy
        stopping = self._config.train.early_stopping
        if progress.best_loss is None or found.loss < progress.best_loss - stopping.min_delta:
            progress.best_loss, progress.best_step, progress.stale = found.loss, progress.step, 0
            return True
        progress.stale += 1
        progress.stopped = stopping.patience is not None and progress.stale >= stopping.patience
        return False

    def _checkpoint(self, log: EventLog, metrics: dict[str, Any]) -> None:
        if self.updater.is_first:
            progress, updater = self.progress, self.updater
            checkpoint.save_checkpoint(self._run, updater.model, updater.optimiser, progress)
            write_results(self._run.path, progress.history)
            path = str(self._run.checkpoint(progress.step).relative_to(self._run.path))
            data = {"step": progress.step, "path": path, "metrics": metrics}
            log.emit("checkpoint", f"checkpoint after step {progress.step}", data)
            checkpoint.prune(self._run, self._config.train.keep_checkpoints, progress.best_step)


def _line(metrics: dict[str, Any]) -> str:
    line = f"step {metrics['step']}/{metrics['total_steps']}: loss {metrics['train_loss']:.4f}"
    if (held_out := metrics.get("full_valid_loss")) is not None:
        line += f", held out {held_out:.4f}"
    return line


@contextmanager
def _memory_explained(config: FinetuneConfig) -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as exc:
        mends = [f"lower train.batch_size ({config.train.batch_size})"]
        if not config.train.gradient_checkpointing:
            mends.append("set train.gradient_checkpointing")
        mends.append(f"lower data.max_length ({config.data.max_length})")
        if config.precision != "nf4":
            mends.append("set precision to nf4")
        raise DoesNotFit(f"the memory does not suffice: {', '.join(mends)}. ({exc})") from exc
