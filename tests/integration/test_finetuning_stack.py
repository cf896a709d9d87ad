"""Jobs as Ray actors, on the stack as users run it, with the fake engine and the fake trainer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from openai import OpenAI

from serving.home import Home
from serving.processes import marked
from serving.runtime import runtime_directory
from tests.integration.stack import Stack, make_home, serve
from tests.unit.finetuning.site import rows

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
WAIT_S = 90.0
SETTINGS = (
    *("finetuning.trainer=fake", "finetuning.lease_s=4", "finetuning.poll_s=0.2"),
    *("finetuning.max_parallel=2", "gateway.replicas=2"),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    os.environ["FAKE_STEP_S"] = "0.1"
    yield make_home(tmp_path_factory.mktemp("home"), models=())
    del os.environ["FAKE_STEP_S"]


def started(home: Home, *more: str) -> Any:
    options = [part for each in (*SETTINGS, *more) for part in ("--set", each)]
    return serve(home, *options, config="fake")


def openai(stack: Stack) -> OpenAI:
    return OpenAI(base_url=f"{stack.url}/v1", api_key=stack.key, max_retries=2)


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def create(client: OpenAI, epochs: int, **more: Any) -> str:
    file = client.files.create(file=("a.jsonl", rows()), purpose="fine-tune")
    return client.fine_tuning.jobs.create(
        model="fake", training_file=file.id,
        hyperparameters={"n_epochs": epochs, "batch_size": 4}, **more,
    ).id  # fmt: skip


def messages(client: OpenAI, id: str) -> list[str]:
    return [event.message for event in client.fine_tuning.jobs.list_events(id, limit=100)]


def steps(client: OpenAI, id: str) -> list[int]:
    """Reported, the newest first."""
    found: list[Any] = [
        event.data
        for event in client.fine_tuning.jobs.list_events(id, limit=100)
        if event.type == "metrics"
    ]
    return [each["step"] for each in found]


def reached(client: OpenAI, id: str, step: int) -> None:
    until(lambda: max(steps(client, id), default=0) >= step, f"step {step}")


def succeeded(client: OpenAI, id: str) -> str:
    def over() -> bool:
        job = client.fine_tuning.jobs.retrieve(id)
        assert job.status not in ("failed", "cancelled"), job.error
        return job.status == "succeeded"

    until(over, "success")
    name = client.fine_tuning.jobs.retrieve(id).fine_tuned_model
    assert name is not None
    return name


def process_of(home: Home, *words: str) -> psutil.Process:
    """The stack's process whose command line holds all of these."""
    found = [
        process
        for process in marked(runtime_directory(home).name)
        if all(word in " ".join(process.cmdline()) for word in words)
    ]
    assert found, words
    return found[0]


def test_jobs_outlive_their_actor_a_gateway_and_the_stack_while_requests_wait(home: Home) -> None:
    with started(home, "finetuning.share=pause") as stack, openai(stack) as client:
        hurt, spared = create(client, 20, suffix="bot"), create(client, 20)
        reached(client, hurt, 5)
        reached(client, spared, 5)
        child = process_of(home, "serving.finetuning.fake", hurt)
        actor = psutil.Process(child.ppid())
        assert "ray::" in " ".join(actor.cmdline())
        actor.kill()
        process_of(home, "ray::ServeReplica", "gateway").kill()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(client.completions.create, model="fake", prompt="x", max_tokens=1)
            assert not waiting.done()
            succeeded(client, spared)
            assert not waiting.done() or client.fine_tuning.jobs.retrieve(hurt).finished_at
            succeeded(client, hurt)
            waiting.result(WAIT_S)
        assert steps(client, spared) == list(range(60, 0, -1)), "adopted, not begun again"
        name = succeeded(client, hurt)
        assert any("ended without a word" in message for message in messages(client, hurt))
        assert set(steps(client, hurt)) == set(range(1, 61))
        client.completions.create(model=name, prompt="x", max_tokens=1)
        cut = create(client, 20, suffix="bot")
        reached(client, cut, 5)
    assert [p for p in psutil.process_iter(["cmdline"]) if cut in str(p.info["cmdline"])] == []
    with started(home) as stack, openai(stack) as client:
        second = succeeded(client, cut)
        assert set(steps(client, cut)) == set(range(1, 61))
        assert any("attempt 2" in message for message in messages(client, cut))
        _check_commands(stack, home.root, hurt, second)


def _check_commands(stack: Stack, folder: Path, first: str, second: str) -> None:
    """What `corral` shows and does of all this."""
    listed = stack.corral("finetune", "list")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert first in listed.stdout
    assert second in listed.stdout
    assert "training loss=" in stack.corral("finetune", "logs", first).stdout
    rows_ = stack.corral("registry", "list").stdout
    assert "champion" in rows_
    assert "challenger" in rows_
    done = stack.corral("registry", "promote", "default.bot@2")
    assert "default.bot: champion 2" in done.stdout, done.stderr
    done = stack.corral("registry", "rollback", "default.bot")
    assert "default.bot: champion 1" in done.stdout, done.stderr
    told = stack.corral("registry", "history", "default.bot").stdout
    assert ("rollback" in told, "promote" in told, "register" in told) == (True, True, True)
    data = folder / "talk.jsonl"
    data.write_bytes(rows())
    done = stack.corral("finetune", "run", str(data), "--suffix", "bot", "--epochs", "2")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "corral chat --model ft:fake:default:bot:" in done.stdout
    data.write_bytes(b"nope\n" + rows())
    done = stack.corral("finetune", "run", str(data))
    assert (done.returncode, "row 1: is not JSON" in done.stdout) == (1, True), done.stdout
