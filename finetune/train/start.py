"""From a checked configuration to the loop."""

from __future__ import annotations

from pathlib import Path

from transformers.utils.logging import disable_progress_bar

from finetune.config import FinetuneConfig
from finetune.data.tokenise import Tokenised
from finetune.events import EventLog
from finetune.run_folder import RunFolder
from finetune.stop import Stop
from finetune.train.loop import Loop, Trained
from finetune.train.precision import place_for
from finetune.train.workers import train_in_workers


def start_training(
    config: FinetuneConfig,
    folder: Path,
    data: Tokenised,
    run: RunFolder,
    log: EventLog,
    stop: Stop,
) -> Trained:
    """Load the model of `folder` and train it on `data`, in this process or in several others.

    `config.precision` is decided, not `auto`. Raises FinetuneError.
    """
    disable_progress_bar()
    place = place_for(config.precision, config.train.workers)
    if config.train.workers > 1:
        return train_in_workers(config, run, log, stop)
    return Loop(config, folder, place, data, run).go(log, stop)
