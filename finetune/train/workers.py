"""Several processes that share each step, on one machine: torchrun starts them, DDP joins them.

    python -m torch.distributed.run … -m finetune.train.workers RUN_FOLDER

Each reads the run's configuration and data itself; the first writes events and checkpoints, and
what came of it all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from configs import load
from finetune.base_model import find_model, load_tokenizer, models_folder
from finetune.config import FinetuneConfig
from finetune.data.tokenise import tokenise
from finetune.errors import FinetuneError, WorkersFailed
from finetune.events import EventLog, read_events
from finetune.run_folder import RunFolder, write_whole
from finetune.stop import Stop
from finetune.train.checkpoint import Progress
from finetune.train.loop import Loop, Trained
from finetune.train.model import Place
from finetune.train.precision import choose

_OUTCOME = ".workers.json"
_LOG_TAIL = 2000
_POLL_S = 0.2


def train_in_workers(config: FinetuneConfig, run: RunFolder, log: EventLog, stop: Stop) -> Trained:
    """Start them, hand on their events and what they found. Raises FinetuneError."""
    outcome = run.path / _OUTCOME
    outcome.unlink(missing_ok=True)
    count = config.train.workers
    threads = max(1, (os.cpu_count() or 1) // count)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        child = subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
                f"--nproc-per-node={count}",
                *("-m", "finetune.train.workers", str(run.path)),
            ],
            env={"OMP_NUM_THREADS": str(threads), **os.environ},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _follow(child, run, log, stop)
        finally:
            child.terminate()
            child.wait()
        output.seek(0)
        said = output.read()[-_LOG_TAIL:]
    if not outcome.exists():
        raise WorkersFailed(f"the {count} workers ended without a result:\n{said}")
    found: dict[str, Any] = json.loads(outcome.read_text(encoding="utf-8"))
    if (error := found.get("error")) is not None:
        raise WorkersFailed(error["message"], error["code"], error["param"])
    return Trained(**{**found, "progress": Progress(**found["progress"])})


def _follow(child: subprocess.Popen[bytes], run: RunFolder, log: EventLog, stop: Stop) -> None:
    """Until they end: events onwards, a wish to stop inwards."""
    at, told = read_events(run.path).after, False
    while True:
        ended = child.poll() is not None
        page = read_events(run.path, at)
        at = page.after
        for event in page.events:
            log.hand_on(event)
        if ended:
            return
        if stop.requested and not told:
            child.terminate()
            told = True
        try:
            child.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            continue


def work(folder: Path) -> None:
    """What one worker does."""
    run = RunFolder(folder)
    config = load(FinetuneConfig, run.config)
    is_first = os.environ["RANK"] == "0"
    stop = Stop()
    with stop.on_signals():
        try:
            found = asdict(_train(config, run, stop))
        except FinetuneError as exc:
            found = {"error": {"code": exc.code, "message": str(exc), "param": exc.param}}
        if is_first:
            write_whole(folder / _OUTCOME, json.dumps(found))


def _train(config: FinetuneConfig, run: RunFolder, stop: Stop) -> Trained:
    folder = find_model(config.model, models_folder())
    data = tokenise(config.data, load_tokenizer(config.data, folder))
    data.require()
    place = choose(config).place
    loop = Loop(config, folder, Place(place.device, place.precision), data, run)
    return loop.go(EventLog(run.path), stop)


if __name__ == "__main__":
    work(Path(sys.argv[1]))
