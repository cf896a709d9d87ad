"""Jobs outlive whoever worked on them: the trainer, the gateway, the whole stack."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from openai import APIConnectionError, OpenAI

from serving.home import Home
from serving.runtime import admin_key
from tests.unit.finetuning.site import ask, ended, reached, rows, upload, works

ROOT = Path(__file__).parents[2]
WAIT_S = 60.0


async def test_a_gateway_that_ends_interrupts_its_job_and_the_next_one_resumes_it(
    tmp_path: Path,
) -> None:
    async with works(tmp_path) as first:
        client = first.client()
        job = await client.fine_tuning.jobs.create(
            model="fake", training_file=await upload(client),
            hyperparameters={"n_epochs": 20, "batch_size": 4},
        )  # fmt: skip
        await reached(client, job.id, 5)
    async with works(tmp_path) as second:
        client = second.client()
        done = await ended(client, job.id)
        assert (done.status, done.trained_tokens) == ("succeeded", 6000)
        events = [e async for e in client.fine_tuning.jobs.list_events(job.id, limit=100)]
        steps = [e.data["step"] for e in events if e.type == "metrics"]  # type: ignore[index]
        assert steps == list(range(60, 0, -1)), "interrupted with a checkpoint: no step twice"
        assert done.fine_tuned_model is not None
        await ask(client, done.fine_tuned_model)


async def test_a_job_is_finished_though_its_trainer_had_ended_already(tmp_path: Path) -> None:
    async with works(tmp_path) as running:
        client = running.client()
        job = await client.fine_tuning.jobs.create(model="fake", training_file=await upload(client))
        done = await ended(client, job.id)
    again = running.shop.settings.work(job.id)
    assert done.status == "succeeded"
    assert (again.run / "summary.json").exists()
    assert not again.data("training").exists(), "copies of the data are removed"
    assert again.log.exists()


@contextmanager
def local_stack(root: Path, port: int) -> Iterator[tuple[OpenAI, subprocess.Popen[bytes]]]:
    settings = ("trainer=fake", "poll_s=0.1", "lease_s=2")
    options = [part for each in settings for part in ("--set", f"finetuning.{each}")]
    process = subprocess.Popen(
        [sys.executable, "-m", "serving.local_stack", "--config", "fake",
         "--set", f"gateway.port={port}", *options],
        cwd=ROOT,
        env=os.environ | {"CORRAL_HOME": str(root), "FAKE_STEP_S": "0.05"},
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}/v1"
        with OpenAI(base_url=url, api_key=admin_key(Home(root)), max_retries=0) as client:
            _await(lambda: bool(_models(client)))
            yield client, process
    finally:
        process.kill()
        process.wait()


def _models(client: OpenAI) -> list[str]:
    try:
        return [model.id for model in client.models.list()]
    except APIConnectionError:
        return []


def _await(condition: Any) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _step(client: OpenAI, id: str) -> int:
    events = client.fine_tuning.jobs.list_events(id, limit=5).data
    found: list[Any] = [event.data for event in events if event.type == "metrics"]
    return int(found[0]["step"]) if found else 0


def _trainers(job_id: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "serving.finetuning.fake" in line and any(job_id in part for part in line):
            found.append(process)
    return found


def test_kill_9_of_the_trainer_and_then_of_everything(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with local_stack(tmp_path, port) as (client, process):
        file = client.files.create(file=("a.jsonl", rows()), purpose="fine-tune")
        job = client.fine_tuning.jobs.create(
            model="fake", training_file=file.id, suffix="bot",
            hyperparameters={"n_epochs": 12, "batch_size": 4},
        )  # fmt: skip
        _await(lambda: _step(client, job.id) >= 4)
        [trainer] = _trainers(job.id)
        assert psutil.Process(trainer.pid).nice() > psutil.Process(process.pid).nice()
        trainer.kill()
        _await(lambda: _step(client, job.id) >= 10)
        process.send_signal(signal.SIGKILL)
        process.wait()
    _await(lambda: not _trainers(job.id))  # it dies with its parent, and writes a checkpoint
    with local_stack(tmp_path, port) as (client, process):
        _await(lambda: client.fine_tuning.jobs.retrieve(job.id).status == "succeeded")
        done = client.fine_tuning.jobs.retrieve(job.id)
        assert done.trained_tokens == 3600
        metrics: list[Any] = [
            event.data
            for event in client.fine_tuning.jobs.list_events(job.id, limit=100)
            if event.type == "metrics"
        ]
        losses = {each["step"]: each["train_loss"] for each in metrics}
        assert losses == {step: round(4.0 / (1 + step), 6) for step in range(1, 37)}
        assert done.fine_tuned_model is not None
        client.completions.create(model=done.fine_tuned_model, prompt="x", max_tokens=1)
