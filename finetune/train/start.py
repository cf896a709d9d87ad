"""From a checked configuration to the loop."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from transformers.utils.logging import disable_progress_bar

from finetune.config import FinetuneConfig
from finetune.data.tokenise import Tokenised
from finetune.events import EventLog
from finetune.run_folder import RunFolder
from finetune.stop import Stop
from finetune.train.loop import Loop, Trained
from finetune.train.precision import Choice, choose
from finetune.train.workers import train_in_workers


class Training(NamedTuple):
    """What was chosen, and what came of it."""

    chosen: Choice
    trained: Trained


def start_training(
    config: FinetuneConfig,
    folder: Path,
    data: Tokenised,
    run: RunFolder,
    log: EventLog,
    stop: Stop,
) -> Training:
    """Load the model of `folder` and train it on `data`, in this process or in several others.

    Raises FinetuneError.
    """
    disable_progress_bar()
    chosen = choose(config)
    message = f"{chosen.place.precision} on {chosen.place.device.type}: {chosen.reason}"
    log.emit("message", message)
    if config.train.workers > 1:
        return Training(chosen, train_in_workers(config, run, log, stop))
    return Training(chosen, Loop(config, folder, chosen.place, data, run).go(log, stop))
