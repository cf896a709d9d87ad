"""The registry: whose a model is, what is live, promotion, rollback, deletion, and who did it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from openai import APIStatusError, AsyncOpenAI, NotFoundError, PermissionDeniedError

from serving.adapters import AdapterStore
from tests.unit.finetuning.site import Works, ask, ended, upload, works


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Works]:
    async with works(tmp_path_factory.mktemp("registry")) as made:
        yield made


shared = pytest.mark.asyncio(loop_scope="module")


async def train(client: AsyncOpenAI, suffix: str | None, model: str = "fake") -> str:
    job = await client.fine_tuning.jobs.create(
        model=model, training_file=await upload(client), suffix=suffix
    )
    name = (await ended(client, job.id)).fine_tuned_model
    assert name is not None
    return name


def live(running: Works, adapter: str, base: str = "fake") -> str:
    """What another gateway process would send to its engines."""
    store: AdapterStore = running.shop.settings.adapters()
    return store.resolve(base, adapter).engine_name


@shared
async def test_versions_aliases_promotion_and_rollback(running: Works) -> None:
    client = running.client("acme")
    names = [await train(client, "bot") for _ in range(3)]
    assert live(running, "acme.bot") == "fake:acme.bot@1"
    listed: Any = await running.admin("GET", "/admin/registry/acme.bot")
    versions = {row["version"]: row for row in listed["data"] if "step" not in row["version"]}
    assert {v: row["alias"] for v, row in versions.items()} == {
        "1": "champion", "2": None, "3": "challenger",
    }  # fmt: skip
    assert [row["name"] for row in versions.values()] == names
    assert versions["1"]["lineage"]["data_hash"] == "fake"
    assert versions["1"]["gate"] == {"passed": True, "reasons": []}
    for model in (*names, "fake:acme.bot", "fake:acme.bot@2", "fake:acme.bot@challenger"):
        await ask(client, model)

    path = "/admin/registry/acme.bot"
    done = await running.admin("POST", f"{path}/promote", json={"version": "3"})
    assert done == {"adapter": "acme.bot", "champion": "3", "challenger": None}
    assert live(running, "acme.bot") == "fake:acme.bot@3"
    await running.admin("POST", f"{path}/promote", json={"version": "2", "alias": "challenger"})
    done = await running.admin("POST", f"{path}/rollback")
    assert done == {"adapter": "acme.bot", "champion": "1", "challenger": "2"}
    assert live(running, "acme.bot") == "fake:acme.bot@1"
    refused = await running.site.http.post(f"{path}/rollback", headers=bearing(running))
    assert (refused.status_code, "no champion before 1" in refused.text) == (409, True)

    lines = (await running.admin("GET", f"{path}/history"))["data"]
    told = [(line["action"], line["alias"], line["version"], line["previous"]) for line in lines]
    assert told == [
        ("rollback", "champion", "1", "3"),
        ("promote", "challenger", "2", None),
        ("promote", "champion", "3", "1"),
        ("register", "challenger", "3", "2"),
        ("register", "challenger", "2", None),
        ("register", "champion", "1", None),
    ]
    assert lines[0]["actor"] != lines[5]["actor"], "an admin, and the tenant's own key"
    audit = await running.admin("GET", "/admin/audit", params={"limit": 50})
    assert "adapter.rollback" in {entry["action"] for entry in audit["data"]}


def bearing(running: Works) -> dict[str, str]:
    from tests.unit.gateway.in_process import ADMIN_KEY

    return {"authorization": f"Bearer {ADMIN_KEY}"}


@shared
async def test_a_version_that_is_not_there_is_not_promoted(running: Works) -> None:
    for adapter, version in (("acme.bot", "99"), ("nonesuch", "1")):
        answer = await running.site.http.post(
            f"/admin/registry/{adapter}/promote", headers=bearing(running),
            json={"version": version},
        )  # fmt: skip
        assert answer.status_code == 404, answer.text


@shared
async def test_other_tenants_neither_see_nor_use_it(running: Works) -> None:
    ours, theirs = running.client("ours"), running.client("theirs")
    name = await train(ours, "private-thing")
    id = name.rpartition(":")[2]
    checkpoint = f"{name}:ckpt-step-1"
    listed = [model.id async for model in ours.models.list()]
    assert {name, "fake:ours.private-thing"} <= set(listed)
    seen = [model.id async for model in theirs.models.list()]
    assert not [model for model in seen if "private" in model or "ours" in model]
    absent = "fake:ours.private-thinG"
    for model in (name, checkpoint, "fake:ours.private-thing", "fake:ours.private-thing@1"):
        with pytest.raises(NotFoundError) as caught:
            await ask(theirs, model)
        hints = caught.value.message.replace(model, "").replace("fake:ours.private-thing", "")
        assert "private" not in hints
        assert id not in hints
        for call in (theirs.models.retrieve, theirs.models.delete):
            with pytest.raises(NotFoundError):
                await call(model)
    with pytest.raises(NotFoundError) as told:
        await ask(theirs, "fake:ours.private-thing")
    with pytest.raises(NotFoundError) as untold:
        await ask(theirs, absent)
    assert told.value.message == untold.value.message.replace("thinG", "thing"), "no oracle"
    forged = name.replace(":ours:", ":theirs:")
    for client in (ours, theirs):
        with pytest.raises(NotFoundError):
            await ask(client, forged)
    await ask(ours, name)
    await ask(running.client(), name)


@shared
async def test_jobs_of_another_tenant_are_not_there(running: Works) -> None:
    ours, theirs = running.client("ours"), running.client("theirs")
    job = await ours.fine_tuning.jobs.create(model="fake", training_file=await upload(ours))
    jobs = theirs.fine_tuning.jobs
    calls: tuple[Any, ...] = (jobs.retrieve, jobs.cancel, jobs.pause, jobs.resume)
    for call in (*calls, jobs.list_events, jobs.checkpoints.list):
        with pytest.raises(NotFoundError):
            await call(job.id)
    assert [each.id async for each in jobs.list()] == []
    await ended(ours, job.id)


@shared
async def test_a_key_that_may_not_use_the_adapter_may_not_either_by_its_ft_name(
    running: Works,
) -> None:
    name = await train(running.client("ours"), "guarded")
    key = running.key("ours", adapters=["fake:ours.other*"])
    async with AsyncOpenAI(base_url=f"{running.site.url}/v1", api_key=key, max_retries=0) as client:
        with pytest.raises(PermissionDeniedError):
            await ask(client, name)
        assert name not in [model.id async for model in client.models.list()]


@shared
async def test_one_suffix_with_two_base_models_makes_two_adapters(running: Works) -> None:
    client = running.client("acme")
    first, second = await train(client, "twin"), await train(client, "twin", "other")
    assert second.startswith("ft:other:acme:twin:")
    await ask(client, first)
    await ask(client, second)
    assert live(running, "acme.twin") == "fake:acme.twin@1"
    adapters = {row["adapter"] for row in (await running.admin("GET", "/admin/registry"))["data"]}
    assert len([name for name in adapters if name.startswith("acme.twin")]) == 2


@shared
async def test_deletion(running: Works) -> None:
    client = running.client("acme")
    first, second = await train(client, "gone"), await train(client, "gone")
    deleted = await client.models.delete(first)
    assert (deleted.id, deleted.object, deleted.deleted) == (first, "model", True)
    for model in (first, "fake:acme.gone"):
        with pytest.raises(NotFoundError):
            await ask(client, model)
    await ask(client, second)
    assert (await train(client, "gone")) != first
    rows = (await running.admin("GET", "/admin/registry/acme.gone"))["data"]
    assert {row["version"] for row in rows if "step" not in row["version"]} == {"2", "3"}
    checkpoint = next(row["name"] for row in rows if "ckpt" in (row["name"] or ""))
    await client.models.delete(checkpoint)
    with pytest.raises(NotFoundError):
        await ask(client, checkpoint)
    job = (await client.fine_tuning.jobs.list(limit=2)).data
    left = [c for each in job async for c in client.fine_tuning.jobs.checkpoints.list(each.id)]
    assert checkpoint not in [c.fine_tuned_model_checkpoint for c in left]


@shared
async def test_what_the_stack_serves_itself_is_not_deleted(running: Works) -> None:
    with pytest.raises(APIStatusError) as caught:
        await running.client().models.delete("fake")
    assert caught.value.status_code == 403
    await ask(running.client(), "fake")
