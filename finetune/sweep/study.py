"""The search itself. Optuna proposes settings, and prunes by the median of earlier trials."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune.config import FinetuneConfig, Range
from finetune.errors import FinetuneError, MissingExtra, RunConflict
from finetune.run_folder import dump, write_whole
from finetune.stop import Stop
from finetune.summary import load_summary
from finetune.sweep.space import Value, check_space, configure
from finetune.sweep.trial import Outcome, run_trial

BEST = "best.json"
_JOURNAL = "optuna.log"
_CONFIG = "sweep.yaml"
_STARTUP_TRIALS = 3
"""Trials that are never pruned, and whose settings are drawn at random."""


@dataclass(frozen=True)
class TrialResult:
    """One trial, as reports show it."""

    number: int
    folder: str
    state: str
    """complete, pruned, fail or running."""
    valid_loss: float | None
    settings: dict[str, Value]


@dataclass(frozen=True)
class SweepResult:
    """A search, as far as it has come."""

    folder: Path
    trials: tuple[TrialResult, ...]
    interrupted: bool = False

    @property
    def best(self) -> TrialResult | None:
        """Lowest validation loss of the trials that were not cut short."""
        whole = [t for t in self.trials if t.state == "complete" and t.valid_loss is not None]
        return min(whole, key=lambda t: t.valid_loss or 0.0, default=None)


def sweep(
    config: FinetuneConfig,
    folder: Path,
    say: Callable[[str], None] = print,
    stop: Stop | None = None,
) -> SweepResult:
    """Search `config.sweep.space` in `folder`, or go on with the search that it holds.

    `best.json` names the best run's folder after every trial. SIGTERM and SIGINT end it with a
    checkpoint of the trial under way. Raises ConfigError for a space that cannot be, RunConflict
    where the folder holds another search, FinetuneError where no trial gave a validation loss.
    """
    check_space(config)
    folder.mkdir(parents=True, exist_ok=True)
    _claim(config, folder)
    search = _Search(config, folder, say, stop or Stop())
    with search.stop.on_signals():
        result = search.go()
    if result.best is None and not result.interrupted:
        raise FinetuneError(
            "no trial gave a validation loss: see the logs in "
            f"{folder}, and hold data out with data.validation or data.validation_fraction"
        )
    return result


class _Search:
    def __init__(
        self, config: FinetuneConfig, folder: Path, say: Callable[[str], None], stop: Stop
    ) -> None:
        self.stop = stop
        self._config, self._folder, self._say = config, folder, say
        self._optuna = _optuna()
        self._study = self._open()

    def go(self) -> SweepResult:
        """Trial after trial."""
        states = self._optuna.trial.TrialState
        over = (states.COMPLETE, states.PRUNED, states.FAIL)
        while len(self._study.get_trials(states=over, deepcopy=False)) < self._config.sweep.trials:
            if not self._one():
                return SweepResult(self._folder, self._results(), interrupted=True)
            self._write_best()
        return SweepResult(self._folder, self._results())

    def _open(self) -> Any:
        optuna = self._optuna
        journal = optuna.storages.journal.JournalFileBackend(str(self._folder / _JOURNAL))
        pruner = optuna.pruners.NopPruner()
        if self._config.sweep.prune:
            pruner = optuna.pruners.MedianPruner(n_startup_trials=_STARTUP_TRIALS)
        return optuna.create_study(
            study_name=self._folder.name,
            storage=optuna.storages.JournalStorage(journal),
            sampler=optuna.samplers.TPESampler(n_startup_trials=_STARTUP_TRIALS, seed=self._seed()),
            pruner=pruner,
            load_if_exists=True,
        )

    def _seed(self) -> int:
        """Another one after each resumption, or the same settings would come again."""
        path = self._folder / _JOURNAL
        lines = len(path.read_bytes().splitlines()) if path.exists() else 0
        return (self._config.seed + lines) % 2**32

    def _one(self) -> bool:
        """The next trial, or one that a stopped search left; False if this one was stopped."""
        optuna = self._optuna
        left = self._study.get_trials(states=(optuna.trial.TrialState.RUNNING,), deepcopy=False)
        trial = optuna.trial.Trial(self._study, left[0]._trial_id) if left else self._study.ask()
        settings = {
            path: _suggest(trial, path, each) for path, each in self._config.sweep.space.items()
        }
        name = f"{self._folder.name}-trial-{trial.number}"
        folder = self._folder / name
        self._say(f"trial {trial.number}: {_plain(settings)}")
        trial.set_user_attr("folder", name)
        outcome = run_trial(
            configure(self._config, settings, name), folder, _pruner(trial), self.stop
        )
        if outcome.end == "stopped":
            return False
        self._tell(trial, outcome)
        return True

    def _tell(self, trial: Any, outcome: Outcome) -> None:
        states = self._optuna.trial.TrialState
        loss = outcome.valid_loss
        if outcome.end == "done" and loss is not None:
            self._study.tell(trial, loss)
            self._say(f"trial {trial.number}: validation loss {loss:.4f}")
        elif outcome.end == "pruned":
            self._study.tell(trial, state=states.PRUNED)
            self._say(f"trial {trial.number}: pruned")
        else:
            self._study.tell(trial, state=states.FAIL)
            self._say(f"trial {trial.number}: failed: {outcome.reason or 'no validation loss'}")

    def _results(self) -> tuple[TrialResult, ...]:
        found = []
        for trial in self._study.get_trials(deepcopy=False):
            seen = trial.intermediate_values.values()
            folder = str(self._folder / trial.user_attrs.get("folder", ""))
            loss = trial.value if trial.value is not None else min(seen, default=None)
            found.append(
                TrialResult(
                    trial.number, folder, trial.state.name.lower(), loss, dict(trial.params)
                )
            )
        return tuple(found)

    def _write_best(self) -> None:
        best = SweepResult(self._folder, self._results()).best
        if best is None:
            return
        summary = load_summary(Path(best.folder))
        gate = None if summary is None or summary.gate is None else summary.gate.model_dump()
        found = asdict(best) | {"adapter": str(Path(best.folder, "adapter")), "gate": gate}
        text = json.dumps(found, indent=2, ensure_ascii=False)
        write_whole(self._folder / BEST, f"{text}\n")


_ANY = {"trials": 1}


def _claim(config: FinetuneConfig, folder: Path) -> None:
    """The folder's search is this one; only the number of trials may differ."""
    held = folder / _CONFIG
    wanted = dump(config.model_copy(update={"sweep": config.sweep.model_copy(update=_ANY)}))
    if not held.exists():
        write_whole(held, wanted)
    elif held.read_text(encoding="utf-8") != wanted:
        raise RunConflict(
            f"{folder} holds a search with other settings (see {_CONFIG}): name another folder "
            "with --run, or use its settings; only the number of trials may change"
        )


def _pruner(trial: Any) -> Callable[[int, float], bool]:
    def prune(step: int, loss: float) -> bool:
        trial.report(loss, step)
        return bool(trial.should_prune())

    return prune


def _suggest(trial: Any, path: str, each: Range) -> Value:
    if each.choices:
        chosen: Value = trial.suggest_categorical(path, each.choices)
        return chosen
    if each.whole:
        return int(
            trial.suggest_int(path, round(each.low or 0), round(each.high or 0), log=each.log)
        )
    return float(trial.suggest_float(path, each.low, each.high, log=each.log))


def _plain(settings: dict[str, Value]) -> str:
    return ", ".join(
        f"{path} {value:.3g}" if isinstance(value, float) else f"{path} {value}"
        for path, value in settings.items()
    )


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as exc:
        raise MissingExtra(
            f"Optuna cannot be imported ({exc}): pip install 'corral[finetune]'"
        ) from exc
    optuna.logging.set_verbosity(logging.WARNING)
    return optuna
