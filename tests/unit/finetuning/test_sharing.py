"""`share: pause`: the engine sleeps while its model is trained, and requests wait for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from configs import ConfigError, parse
from serving.config import ServeConfig
from serving.finetuning.reconcile import turns
from serving.local_pool import LocalPool
from serving.store.jobs import Job
from tests.unit.finetuning.site import Works, ask, ended, upload, works
from tests.unit.gateway.in_process import WAIT_S


def asleep(running: Works, model: str) -> bool:
    pool = running.site.pools[model]
    assert isinstance(pool, LocalPool)
    return pool._sleep.asleep


async def until_asleep(running: Works) -> None:
    async with asyncio.timeout(WAIT_S):
        while not asleep(running, "fake"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_requests_wait_until_the_job_is_over(tmp_path: Path) -> None:
    async with works(tmp_path, share="pause") as running:
        client = running.client()
        before = await ask(client, "fake")
        job = await client.fine_tuning.jobs.create(
            model="fake", training_file=await upload(client), hyperparameters={"n_epochs": 40}
        )
        await until_asleep(running)
        assert await ask(client, "other") == before, "other models answer"
        ready = (await running.site.http.get("/ready")).json()
        assert "sleeps while a fine-tuning job" in ready["models"]["fake"]["detail"]
        waiting = asyncio.create_task(ask(client, "fake"))
        await ended(client, job.id)
        assert await waiting == before
        assert not asleep(running, "fake")
        assert (await running.site.http.get("/ready")).status_code == 200


async def test_what_runs_ends_before_the_engine_sleeps(tmp_path: Path) -> None:
    async with works(tmp_path, share="pause") as running:
        client = running.client()
        file = await upload(client)
        stream = await client.completions.create(
            model="fake", prompt="x", max_tokens=2000, stream=True
        )
        job = await client.fine_tuning.jobs.create(model="fake", training_file=file)
        tokens = [chunk async for chunk in stream if chunk.choices]
        assert len(tokens) >= 2000
        assert (await ended(client, job.id)).status == "succeeded"


async def test_a_cancelled_job_gives_the_engine_back(tmp_path: Path) -> None:
    async with works(tmp_path, share="pause") as running:
        client = running.client()
        job = await client.fine_tuning.jobs.create(
            model="fake", training_file=await upload(client), hyperparameters={"n_epochs": 900}
        )
        await until_asleep(running)
        await client.fine_tuning.jobs.cancel(job.id)
        assert await ask(client, "fake")


def test_engines_that_cannot_sleep_are_found_at_the_start() -> None:
    model = {"name": "m", "engine": {"kind": "vllm", "lora": {"max_loras": 2}}}
    with pytest.raises(ConfigError, match=r"models\.0\.engine\.sleep_mode"):
        parse(ServeConfig, {"models": [model], "finetuning": {"share": "pause"}})
    model["engine"]["sleep_mode"] = True  # type: ignore[index]
    parse(ServeConfig, {"models": [model], "finetuning": {"share": "pause"}})


def test_no_tenant_waits_for_all_jobs_of_another() -> None:
    def job(number: int, tenant: str) -> Job:
        return Job(tenant, "fake", {"type": "supervised"}, "f", id=f"j{number}", status="queued")

    jobs = [job(n, tenant) for n, tenant in enumerate(["a", "a", "a", "b", "c", "b"])]
    assert [each.id for each in turns(jobs, set())] == ["j0", "j3", "j4", "j1", "j5", "j2"]
    assert [each.id for each in turns(jobs, {"j0"})] == ["j3", "j4", "j1", "j5", "j2"]
