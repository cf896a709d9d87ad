"""One attempt at one job: claim it, run the trainer, tell the store what it does, end it.

Runs on a thread of its own, in a Ray actor or beside a gateway. The store decides: somebody
who cancels or pauses a job changes its row, and the attempt sees that at its next look.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import suppress
from typing import Any

from finetune.events import Event, read_events
from finetune.summary import load_summary
from serving.errors import CorralError
from serving.finetuning.child import Child, kill_leftover, take_lock
from serving.finetuning.prepare import MissingFile, clear, prepare
from serving.finetuning.publish import claim, publish, publish_checkpoint
from serving.finetuning.shop import Shop
from serving.store.errors import StoreUnavailable
from serving.store.job_events import JobEvent, Progress
from serving.store.jobs import Job, Outcome

POLL_S = 0.2
INTERRUPTED = 75
"""The trainer's exit status after SIGTERM, with a checkpoint written."""
REFUSED = 1
_METRICS = (
    *("step", "total_steps", "train_loss", "train_mean_token_accuracy", "valid_loss"),
    *("valid_mean_token_accuracy", "full_valid_loss", "full_valid_mean_token_accuracy"),
)
_log = logging.getLogger(__name__)


class Superseded(Exception):
    """Another attempt has the job."""


def work(shop: Shop, job_id: str, stop: threading.Event) -> None:
    """See a job through, unless somebody else has it. `stop` interrupts it: it is queued again."""
    job = shop.jobs.begin(job_id)
    if job is None:
        return
    attempt = _Attempt(shop, job, stop)
    try:
        attempt.run()
    except Superseded:
        _log.warning("job %s: another trainer has taken over", job_id)
    except StoreUnavailable:
        _log.exception("job %s: the store is gone; whoever finds the job goes on with it", job_id)
    except Exception as exc:
        _log.exception("job %s failed in the stack", job_id)
        with suppress(StoreUnavailable):
            attempt.give_up("internal_error", f"{type(exc).__name__} in the stack; see its log")


class _Attempt:
    def __init__(self, shop: Shop, job: Job, stop: threading.Event) -> None:
        self._shop = shop
        self._job = job
        self._stop = stop
        self._config = shop.settings.config.finetuning
        self._offset = job.events_offset
        self._beat_at = time.monotonic()
        self._place = shop.settings.work(job.id)

    def run(self) -> None:
        """Until the job, or this attempt at it, is over."""
        lock = self._await_lock()
        try:
            if self._prepared():
                self._run_child(lock)
        finally:
            os.close(lock)

    def _prepared(self) -> bool:
        """Lay everything out; False where that shows that the job cannot be done."""
        try:
            self._job = claim(self._shop, self._job)
            prepare(self._shop, self._job)
        except MissingFile as exc:
            self.give_up(f"invalid_{exc.part}_file", str(exc), f"{exc.part}_file")
        except StoreUnavailable:
            raise
        except CorralError as exc:
            self.give_up("cannot_train", str(exc))
        else:
            return True
        return False

    def give_up(self, code: str, message: str, param: str | None = None) -> None:
        """The job has failed."""
        error = {"code": code, "message": self._public(message)[:16_384], "param": param}
        words = f"The job failed: {error['message']}"
        self._finish(Outcome("failed", words, error))

    def _await_lock(self) -> int:
        """Wait for an earlier trainer to leave; one that does not is ended."""
        patience = time.monotonic() + self._config.grace_s
        self._place.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        while (lock := take_lock(self._place)) is None:
            if time.monotonic() > patience:
                kill_leftover(self._place)
            self._look()
            time.sleep(POLL_S)
        return lock

    def _run_child(self, lock: int) -> None:
        child = Child.start(self._shop.settings, self._place, lock)
        try:
            while (status := child.status()) is None:
                self._read()
                self._look()
                if self._stop.is_set() or self._job.status != "running":
                    child.tell(self._config.grace_s)
                time.sleep(POLL_S)
            self._read()
            self._look()
        except BaseException:
            child.kill()
            raise
        self._end(status)

    def _look(self) -> None:
        """Renew the lease now and then, and hear what was decided. Raises Superseded."""
        if time.monotonic() - self._beat_at < min(1.0, self._config.lease_s / 4):
            return
        try:
            found = self._shop.jobs.beat(self._job.id, self._job.attempt)
        except StoreUnavailable:
            if time.monotonic() - self._beat_at > self._config.lease_s:
                raise
            return
        if found is None:
            raise Superseded
        self._job = found
        self._beat_at = time.monotonic()

    def _read(self) -> None:
        """Pass on what the run has reported since the last look."""
        page = read_events(self._place.run, self._offset)
        if page.after == self._offset:
            return
        told: list[JobEvent] = []
        estimated_us: int | None = None
        for event in page.events:
            if event.type == "checkpoint":
                self._checkpoint(event)
            told += self._told(event)
            eta_s = event.data.get("eta_s")
            if isinstance(eta_s, int | float):
                estimated_us = int((event.at + eta_s) * 1e6)
        try:
            self._shop.events.record(
                self._job.id, self._job.attempt, Progress(told, page.after, estimated_us)
            )
        except StoreUnavailable:
            return  # read again at the next look
        self._offset = page.after

    def _checkpoint(self, event: Event) -> None:
        step, path = int(event.data["step"]), str(event.data["path"])
        source = (self._place.run / path / "adapter").resolve()
        if not source.is_relative_to(self._place.run.resolve()):
            return
        metrics = {**_metrics(event.data.get("metrics") or {}), "step": step}
        with suppress(FileNotFoundError):  # the run has let go of it while it was copied
            publish_checkpoint(self._shop, self._job, step, source, metrics, int(event.at * 1e6))

    def _told(self, event: Event) -> list[JobEvent]:
        """The event in OpenAI's terms; none where the end of the job will say the same."""
        at_us, message = int(event.at * 1e6), self._public(event.message)
        match event.type:
            case "metrics":
                return [JobEvent(at_us, event.level, "metrics", message, dict(event.data))]
            case "checkpoint":
                data = {"step": event.data.get("step")}
                return [JobEvent(at_us, event.level, "message", message, data)]
            case "state":
                state = str(event.data.get("state"))
                if state in ("succeeded", "failed", "interrupted", "validating"):
                    return []
                return [JobEvent(at_us, event.level, "message", f"The job is {state}")]
            case _:
                return [JobEvent(at_us, event.level, "message", message)]

    def _end(self, status: int) -> None:
        """The trainer has ended with this status."""
        if self._job.status == "cancelled":
            self._finish(Outcome("cancelled", "The trainer has ended"))
        elif self._job.status == "paused":
            self._finish(Outcome("paused", "The trainer has ended; its last checkpoint is kept"))
        elif status == 0:
            self._succeed()
        elif status == INTERRUPTED or (status != REFUSED and self._stop.is_set()):
            words = "Interrupted; the job is queued again, from its last checkpoint"
            self._finish(Outcome("queued", words))
        elif status == REFUSED and (error := self._refusal()) is not None:
            self.give_up(error["code"], error["message"], error["param"])
        else:
            how = f"The trainer ended with status {status}"
            maximum = self._config.max_crashes
            self._shop.jobs.crashed(self._job.id, self._job.attempt, how, max_crashes=maximum)

    def _refusal(self) -> dict[str, Any] | None:
        """Why the trainer would not, in OpenAI's terms."""
        summary = load_summary(self._place.run)
        if summary is None or summary.error is None:
            return None
        error = summary.error.model_dump()
        if error["code"] in ("bad_data", "invalid_training_file"):
            error |= {"code": "invalid_training_file", "param": "training_file"}
        return error

    def _succeed(self) -> None:
        summary = load_summary(self._place.run)
        if summary is None:
            self.give_up("internal_error", "the run ended well and left no summary")
            return
        try:
            made = publish(self._shop, self._job, self._place.run / "adapter", summary)
        except CorralError as exc:
            if isinstance(exc, StoreUnavailable):
                raise
            self.give_up("adapter_refused", str(exc))
            return
        name = self._job.name
        words = f"The job has completed; the model is {name}"
        if not made.passed:
            words = f"The job has completed. Its adapter is not live: {'; '.join(made.reasons)}"
        if made.alias is not None:
            words += f", the {made.alias} of {self._job.model}:{self._job.adapter}"
        self._finish(
            Outcome(
                "succeeded",
                words,
                trained_tokens=summary.trained_tokens,
                result_file=self._result(),
                fine_tuned_model=name if made.passed else None,
            )
        )

    def _result(self) -> str | None:
        """The run's table of metrics as a file of the tenant."""
        try:
            content = (self._place.run / "result.csv").read_bytes()
        except FileNotFoundError:
            return None
        blob = self._shop.blobs.put(
            self._job.tenant_id, [content], name="step_metrics.csv",
            purpose="fine-tune-results", media_type="text/csv",
        )  # fmt: skip
        return blob.id

    def _finish(self, outcome: Outcome) -> None:
        self._shop.jobs.finish(self._job.id, self._job.attempt, outcome)
        if outcome.status in ("succeeded", "failed", "cancelled"):
            clear(self._place)

    def _public(self, text: str) -> str:
        """Without the places where the stack keeps its things."""
        return text.replace(f"{self._place.run}", "run").replace(
            f"{self._shop.settings.home.root}", "$CORRAL_HOME"
        )


def _metrics(found: dict[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in _METRICS if found.get(name) is not None}
