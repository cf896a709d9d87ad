"""Fine-tuning jobs through the unmodified `openai` client, from file to answer."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from openai import BadRequestError, NotFoundError, RateLimitError

from serving.config import ServeConfig
from serving.finetuning.child import environment, kill_leftover, take_lock
from serving.finetuning.config import FinetuningConfig
from serving.finetuning.settings import Settings, Workplace
from serving.home import Home
from tests.unit.finetuning.site import Works, ask, ended, reached, rows, upload, works
from tests.unit.gateway.in_process import local


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Works]:
    async with works(tmp_path_factory.mktemp("works")) as made:
        yield made


shared = pytest.mark.asyncio(loop_scope="module")


async def create(running: Works, tenant: str = "default", **asked: Any) -> Any:
    client = running.client(tenant)
    data = asked.pop("data", None)
    return await client.fine_tuning.jobs.create(
        model="fake", training_file=await upload(client, data), **asked
    )


@shared
async def test_from_a_file_to_an_answer(running: Works) -> None:
    client = running.client()
    file = await client.files.create(
        file=("talk.jsonl", rows()), purpose="fine-tune",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )  # fmt: skip
    assert (await client.files.wait_for_processing(file.id)).status == "processed"
    job = await client.fine_tuning.jobs.create(
        model="fake", training_file=file.id, suffix="my-bot", seed=7, metadata={"for": "test"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2,
                "batch_size": 4, "learning_rate_multiplier": "auto"}}},
    )  # fmt: skip
    assert (job.object, job.status, job.seed) == ("fine_tuning.job", "validating_files", 7)
    assert (job.organization_id, job.result_files) == ("default", [])
    assert job.hyperparameters.to_dict() == {
        "n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 1.0,
    }  # fmt: skip
    assert (job.fine_tuned_model, job.finished_at, job.trained_tokens) == (None, None, None)
    done = await ended(client, job.id)
    assert done.status == "succeeded", done.error
    assert done.fine_tuned_model == f"ft:fake:default:my-bot:{job.id[-10:]}"
    assert done.trained_tokens == 600
    assert done.finished_at is not None
    assert done.finished_at >= done.created_at
    await ask(client, done.fine_tuned_model)
    card = await client.models.retrieve(done.fine_tuned_model)
    assert (card.owned_by, card.id) == ("default", done.fine_tuned_model)
    content = (await client.files.content(done.result_files[0])).text
    table = list(csv.DictReader(content.splitlines()))
    assert [row["step"] for row in table] == ["1", "2", "3", "4", "5", "6"]
    assert (await client.files.retrieve(done.result_files[0])).purpose == "fine-tune-results"


@shared
async def test_events_and_checkpoints_page_by_page(running: Works) -> None:
    client = running.client()
    job = await create(running, hyperparameters={"n_epochs": 8, "batch_size": 4})
    await ended(client, job.id)
    events = [e async for e in client.fine_tuning.jobs.list_events(job.id, limit=7)]
    assert len({event.id for event in events}) == len(events) > 24
    steps = [e.data["step"] for e in events if e.type == "metrics"]  # type: ignore[index]
    assert steps == list(range(24, 0, -1)), "the newest first, each once"
    assert events[-1].message == f"Created fine-tuning job: {job.id}"
    assert "The job has completed" in events[0].message
    first = await client.fine_tuning.jobs.list_events(job.id)
    assert (len(first.data), first.has_more) == (20, True)
    jobs = client.fine_tuning.jobs
    found = [c async for c in jobs.checkpoints.list(job.id, limit=3)]
    assert [c.step_number for c in found] == [24, 21, 18, 15, 12, 9, 6, 3]
    assert found[0].metrics.train_loss == 0.16
    assert found[0].metrics.step == 24
    name = found[3].fine_tuned_model_checkpoint
    assert name == f"ft:fake:default::{job.id[-10:]}:ckpt-step-15"
    await ask(client, name)
    assert (await client.models.retrieve(name)).id == name
    assert name not in [model.id async for model in client.models.list()]


@shared
async def test_jobs_are_listed_newest_first_and_by_metadata(running: Works) -> None:
    client = running.client("lister")
    made = [await create(running, "lister", metadata={"n": str(n % 2)}) for n in range(5)]
    for job in made:
        await client.fine_tuning.jobs.cancel(job.id)
    listed = [job.id async for job in client.fine_tuning.jobs.list(limit=2)]
    assert listed == [job.id for job in reversed(made)]
    odd = [job.id async for job in client.fine_tuning.jobs.list(metadata={"n": "1"})]
    assert odd == [made[3].id, made[1].id]


@shared
async def test_bad_rows_fail_the_job_with_their_numbers(running: Works) -> None:
    bad = rows(10).splitlines()
    bad[2], bad[6] = b"nope", json.dumps({"messages": [{"role": "user", "content": 5}]}).encode()
    client = running.client()
    job = await ended(client, (await create(running, data=b"\n".join(bad))).id)
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error.code, job.error.param) == ("invalid_training_file", "training_file")
    assert "row 3: is not JSON" in job.error.message
    assert "row 7: messages[0].content: must be text" in job.error.message
    assert str(running.site.home.root) not in job.error.message
    assert (job.fine_tuned_model, job.finished_at is None) == (None, False)


@shared
async def test_a_bad_validation_file_is_named_as_such(running: Works) -> None:
    client = running.client()
    held_out = await upload(client, b"{}\n")
    job = await ended(client, (await create(running, validation_file=held_out)).id)
    assert job.error is not None
    assert (job.error.code, job.error.param) == ("invalid_validation_file", "validation_file")


@shared
async def test_what_the_trainer_refuses_is_told(running: Works) -> None:
    client = running.client()
    job = await ended(client, (await create(running, data=rows(12, "fake:refuse"))).id)
    assert job.error is not None
    assert (job.status, job.error.code) == ("failed", "invalid_training_file")
    assert job.error.message == "row 1: fake:refuse"


@shared
async def test_a_trainer_that_dies_goes_on_from_its_checkpoint(running: Works) -> None:
    client = running.client()
    data = rows(12, "fake:crash")
    job = await create(running, data=data, hyperparameters={"n_epochs": 4, "batch_size": 2})
    done = await ended(client, job.id)
    assert (done.status, done.trained_tokens) == ("succeeded", 2400)
    events = [e async for e in client.fine_tuning.jobs.list_events(job.id)]
    assert any("ended with status -9; the job is queued again" in e.message for e in events)
    assert any("started (attempt 2)" in e.message for e in events)
    steps = [e.data["step"] for e in events if e.type == "metrics"]  # type: ignore[index]
    assert steps == [*range(24, 12, -1), *range(13, 0, -1)]


@shared
async def test_cancel_ends_it_and_keeps_its_checkpoints(running: Works) -> None:
    client = running.client()
    job = await create(running, hyperparameters={"n_epochs": 900, "batch_size": 4})
    await reached(client, job.id, 4)
    cancelled = await client.fine_tuning.jobs.cancel(job.id)
    assert cancelled.status == "cancelled"
    assert cancelled.finished_at is not None
    with pytest.raises(BadRequestError, match="is cancelled, and cannot be cancelled"):
        await client.fine_tuning.jobs.cancel(job.id)
    checkpoint = (await client.fine_tuning.jobs.checkpoints.list(job.id)).data[0]
    await ask(client, checkpoint.fine_tuned_model_checkpoint)


@shared
async def test_pause_and_resume(running: Works) -> None:
    client = running.client()
    job = await create(running, hyperparameters={"n_epochs": 40, "batch_size": 4})
    await reached(client, job.id, 5)
    paused: str = (await client.fine_tuning.jobs.pause(job.id)).status
    assert paused == "paused"
    with pytest.raises(BadRequestError, match="is paused, and cannot be paused"):
        await client.fine_tuning.jobs.pause(job.id)
    assert (await client.fine_tuning.jobs.resume(job.id)).status == "queued"
    done = await ended(client, job.id)
    assert (done.status, done.trained_tokens) == ("succeeded", 12_000)
    events = [e async for e in client.fine_tuning.jobs.list_events(job.id, limit=100)]
    steps = [e.data["step"] for e in events if e.type == "metrics"]  # type: ignore[index]
    assert steps == list(range(120, 0, -1)), "no step twice: it went on from its checkpoint"


@shared
async def test_a_failed_gate_leaves_it_registered_and_not_live(running: Works) -> None:
    client = running.client()
    job = await create(running, data=rows(12, "fake:gate"), suffix="gated")
    done = await ended(client, job.id)
    assert (done.status, done.fine_tuned_model) == ("succeeded", None)
    name = f"ft:fake:default:gated:{job.id[-10:]}"
    for model in (name, "fake:default.gated", "fake:default.gated@1"):
        with pytest.raises(NotFoundError):
            await ask(client, model)
    event = (await client.fine_tuning.jobs.list_events(job.id, limit=1)).data[0]
    assert "not live: max_loss_over_base: missed" in event.message
    [row] = [
        each
        for each in (await running.admin("GET", "/admin/registry/default.gated"))["data"]
        if each["name"] == name
    ]
    assert (row["gate"]["passed"], row["alias"], row["disabled"]) == (False, None, True)
    await running.admin("POST", "/admin/registry/default.gated/promote", json={"version": "1"})
    assert (await client.fine_tuning.jobs.retrieve(job.id)).fine_tuned_model == name
    await ask(client, name)
    await ask(client, "fake:default.gated")


@shared
@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"model": "nonesuch"}, "model"),
        ({"training_file": "file-0"}, "training_file"),
        ({"validation_file": "file-0"}, "validation_file"),
        ({"suffix": "a:b"}, "suffix"),
        ({"suffix": "x" * 65}, "suffix"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "x"}}]}, "integrations"),
        ({"method": {"type": "reinforcement"}}, "method.type"),
        ({"method": {"type": "supervised", "dpo": {}}}, "method.dpo"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"lora_rank": 4}}, "hyperparameters.lora_rank"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
        ({"seed": -1}, "seed"),
    ],
    ids=str,
)
async def test_requests_that_make_no_sense_are_refused(
    running: Works, asked: dict[str, Any], param: str
) -> None:
    client = running.client()
    wanted = {"model": "fake", "training_file": await upload(client), **asked}
    with pytest.raises(BadRequestError) as caught:
        await client.fine_tuning.jobs.create(**wanted)
    assert caught.value.param == param


@shared
async def test_a_file_of_another_purpose_is_refused(running: Works) -> None:
    client = running.client()
    file = await client.files.create(file=("a.jsonl", rows()), purpose="batch")
    with pytest.raises(BadRequestError, match="purpose 'batch'"):
        await client.fine_tuning.jobs.create(model="fake", training_file=file.id)


@shared
async def test_preferences_need_preference_data(running: Works) -> None:
    client = running.client()
    method: Any = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.3}}}
    job = await create(running, method=method)
    assert job.method is not None
    assert job.method.dpo is not None
    assert job.method.dpo.hyperparameters is not None
    assert job.method.dpo.hyperparameters.beta == 0.3
    done = await ended(client, job.id)
    assert done.error is not None
    assert "holds supervised data, and the job's method needs preference data" in done.error.message
    pair = {
        "input": {"messages": [{"role": "user", "content": "hi"}]},
        "preferred_output": [{"role": "assistant", "content": "hello"}],
        "non_preferred_output": [{"role": "assistant", "content": "no"}],
    }
    pairs = []
    for n in range(12):
        pair["input"] = {"messages": [{"role": "user", "content": f"hi {n}"}]}
        pairs.append(json.dumps(pair))
    done = await ended(
        client, (await create(running, method=method, data="\n".join(pairs).encode())).id
    )
    assert done.status == "succeeded", done.error


async def test_a_tenant_has_so_many_jobs_and_no_more(tmp_path: Path) -> None:
    async with works(tmp_path, max_open_jobs=2) as running:
        for _ in range(2):
            await create(running, hyperparameters={"n_epochs": 900})
        with pytest.raises(RateLimitError, match="under way"):
            await create(running)
        await create(running, "acme")


def test_a_trainer_that_will_not_go_is_ended_before_another_begins(tmp_path: Path) -> None:
    place = Workplace(tmp_path / "job", tmp_path / "run")
    place.folder.mkdir()
    lock = take_lock(place)
    assert lock is not None
    stubborn = subprocess.Popen(["sleep", "60"], cwd=place.folder, pass_fds=(lock,))
    os.close(lock)
    assert take_lock(place) is None
    kill_leftover(place)
    assert stubborn.wait() == -9
    again = take_lock(place)
    assert again is not None
    os.close(again)


def test_a_trainer_is_given_no_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_AUTH_TOKEN", "CORRAL_API_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, "secret")
    config = ServeConfig(models=(local("fake"),), finetuning=FinetuningConfig(threads=3))
    given = environment(Settings(config, Home(tmp_path)))
    assert "secret" not in given.values()
    assert (given["OMP_NUM_THREADS"], given["CUDA_VISIBLE_DEVICES"]) == ("3", "")
    assert given["CORRAL_HOME"] == str(tmp_path)
