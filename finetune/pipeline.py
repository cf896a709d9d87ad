"""One run, from its files to an adapter: check → load → train → export.

Nothing heavy is imported before the data has been found good.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.base_model import base_revision, find_model, load_tokenizer, models_folder
from finetune.code_version import code_version, package_versions
from finetune.config import FinetuneConfig
from finetune.data.card import DataCard, save_card
from finetune.data.check import check
from finetune.data.tokenise import Tokenised, tokenise
from finetune.errors import BadConfig, FinetuneError, RunConflict
from finetune.events import EventLog, OnEvent
from finetune.export import export_adapter
from finetune.run_folder import RunFolder
from finetune.stop import Stop
from finetune.summary import RunError, Summary, load_summary, save_summary

if TYPE_CHECKING:
    from finetune.train.loop import Trained

_METHODS = {"supervised": "sft", "preference": "dpo"}


@dataclass(frozen=True)
class RunResult:
    """What became of a run."""

    folder: Path
    summary: Summary
    already_done: bool = False
    """Whether the folder held a finished run, so that nothing was done."""

    @property
    def adapter(self) -> Path | None:
        """The exported adapter of a run that succeeded."""
        return self.folder / "adapter" if self.summary.status == "succeeded" else None

    @property
    def exit_status(self) -> int:
        """0 succeeded, 75 interrupted (run it again to go on), 1 refused or failed."""
        return {"succeeded": 0, "interrupted": 75}.get(self.summary.status, 1)


@dataclass
class Pipeline:
    """The phases of one run in its folder."""

    config: FinetuneConfig
    run: RunFolder
    log: EventLog
    stop: Stop
    summary: Summary = field(default_factory=lambda: Summary(status="running"))

    def go(self) -> RunResult:
        """All phases; what is refused ends in `summary.error`. A crash is noted, and raised."""
        try:
            self._phases()
        except FinetuneError as exc:
            error = RunError(code=exc.code, message=str(exc), param=exc.param)
            self._save(status="failed", error=error)
            self.log.state("failed", error.model_dump())
        except Exception as exc:
            self.log.emit("message", f"crashed: {type(exc).__name__}: {exc}", level="error")
            raise
        return RunResult(self.run.path, self.summary)

    def _phases(self) -> None:
        self.log.state("validating")
        self._save(versions=package_versions(), code_version=code_version())
        with self._timed("check"):
            folder = find_model(self.config.model, models_folder())
            data = self._data(folder)
            self._save(data_hash=data.version, base_revision=base_revision(folder))
        trained = self._train(folder, data)
        if trained.interrupted:
            self._save(status="interrupted")
            self.log.state("interrupted")
            return
        self.log.state("exporting")
        with self._timed("export"):
            source = self.run.checkpoint(trained.chosen_step) / "adapter"
            export_adapter(source, self.run.adapter, self._lineage())
        self._save(status="succeeded")
        self.log.state("succeeded")

    def _data(self, folder: Path) -> Tokenised:
        data = self.config.data
        checked = check(data, self._say)
        checked.require()
        if (wanted := _METHODS[checked.method]) != self.config.train.method:
            raise BadConfig(
                f"the data is {checked.method}, and train.method is {self.config.train.method}: "
                f"set train.method to {wanted} and a learning rate for it, or give other data",
                "train.method",
            )
        tokens = tokenise(data, load_tokenizer(data, folder), self._say)
        tokens.require()
        if tokens.version != checked.version:
            raise RunConflict("the data changed while it was read: start again")
        save_card(DataCard(data, checked, str(folder), tokens), self.run.path)
        for warning in [*checked.warnings, *tokens.warnings]:
            self.log.emit("message", warning, level="warn")
        return tokens

    def _train(self, folder: Path, data: Tokenised) -> Trained:
        from finetune.train.start import start_training

        self.log.state("running")
        started = time.monotonic()
        chosen, trained = start_training(self.config, folder, data, self.run, self.log, self.stop)
        seconds = time.monotonic() - started
        progress, last = trained.progress, trained.progress.last_metrics
        self._save(
            steps=progress.step,
            best_step=progress.best_step,
            metrics=last,
            trained_tokens=progress.trained_tokens,
            learnt_tokens=progress.learnt_tokens,
            tokens_per_second=progress.trained_tokens / progress.seconds,
            padding_waste=0.0,
            packing_efficiency=trained.packing_efficiency,
            flops_per_second=trained.flops_per_s,
            mfu=trained.mfu,
            peak_memory_bytes=trained.peak_memory_bytes,
            precision=chosen.place.precision,
            precision_reason=chosen.reason,
            seconds={
                **self.summary.seconds,
                "load": trained.load_s,
                "train": seconds - trained.load_s,
            },
        )
        return trained

    def _lineage(self) -> dict[str, Any]:
        """Where the adapter comes from."""
        summary = self.summary
        return {
            "model": self.config.model,
            "base_revision": summary.base_revision,
            "data_hash": summary.data_hash,
            "step": summary.best_step or summary.steps,
            "metrics": summary.metrics,
            "versions": {"corral": summary.code_version, **summary.versions},
            "config": self.config.model_dump(mode="json"),
        }

    def _save(self, **changes: Any) -> None:
        self.summary = self.summary.model_copy(update=changes)
        save_summary(self.run.path, self.summary)

    def _say(self, line: str) -> None:
        self.log.emit("message", line)

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._save(seconds={**self.summary.seconds, phase: time.monotonic() - started})


def run(
    config: FinetuneConfig,
    folder: Path | str,
    on_event: OnEvent | None = None,
    stop: Stop | None = None,
) -> RunResult:
    """Run `config` in `folder`, or go on with the run of the same configuration that it holds.

    What is wrong with data, model or configuration ends in `RunResult.summary.error`. SIGTERM
    and SIGINT (in the main thread), or `stop`, end it after the next step with a checkpoint.
    Raises RunConflict where the folder holds another run or is in use.
    """
    held = RunFolder(Path(folder))
    held.start(config)
    with held.locked():
        done = load_summary(held.path)
        if done is not None and done.status == "succeeded":
            return RunResult(held.path, done, already_done=True)
        stop = stop or Stop()
        with stop.on_signals():
            return Pipeline(config, held, EventLog(held.path, on_event), stop).go()
