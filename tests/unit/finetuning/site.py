"""A gateway that takes fine-tuning jobs, with the fake trainer and without Ray."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI
from openai.types.fine_tuning import FineTuningJob

from serving.config import ModelConfig, ServeConfig
from serving.finetuning.config import FilesConfig, FinetuningConfig
from serving.finetuning.runner import LocalRunner
from serving.finetuning.service import Finetuning
from serving.finetuning.settings import Settings
from serving.finetuning.shop import Shop
from serving.home import Home
from serving.store.accounts import Accounts
from serving.store.audit import Actor
from serving.store.blobs import BlobStore
from serving.store.config import StoreConfig
from serving.store.database import Store
from serving.store.keys import KeySpec
from tests.unit.gateway.in_process import ADMIN_KEY, WAIT_S, Site, gateway, local

SELF = Actor("test")
FAST: dict[str, Any] = {"trainer": "fake", "poll_s": 0.05, "lease_s": 2.0, "grace_s": 10.0}
OVER = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Works:
    """A running gateway, and the store behind it."""

    site: Site
    accounts: Accounts
    shop: Shop
    clients: dict[str, AsyncOpenAI] = field(default_factory=dict)

    def client(self, tenant: str = "default") -> AsyncOpenAI:
        """The unmodified client, with a key of the tenant."""
        if tenant not in self.clients:
            key = ADMIN_KEY if tenant == "default" else self.key(tenant)
            url = f"{self.site.url}/v1"
            self.clients[tenant] = AsyncOpenAI(base_url=url, api_key=key, max_retries=0)
        return self.clients[tenant]

    def key(self, tenant: str, **rights: Any) -> str:
        """A new key; the tenant is made if it is not there."""
        if tenant not in [each.id for each in self.accounts.tenants.all()]:
            self.accounts.tenants.create(tenant, SELF)
        return self.accounts.keys.create(KeySpec(tenant, **rights), SELF).secret

    async def admin(self, method: str, path: str, **kwargs: Any) -> Any:
        """One admin request's answer."""
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        answer = await self.site.http.request(method, path, headers=headers, **kwargs)
        assert answer.status_code == 200, answer.text
        return answer.json()


def idle_finetuning(home: Home, store: Store, *models: ModelConfig) -> Finetuning:
    """The routes, and nobody who looks after the jobs."""
    config = ServeConfig(models=models, finetuning=FinetuningConfig(enabled=False))
    shop = Shop.over(Settings(config, home), store, BlobStore(store, str(home.store / "blobs")))
    return Finetuning(shop, LocalRunner(shop))


@asynccontextmanager
async def works(root: Path, **finetuning: Any) -> AsyncIterator[Works]:
    """The gateway, over whatever an earlier one has left in `root`."""
    config = ServeConfig(
        models=(local("fake", tokens=4), local("other", tokens=4)),
        finetuning=FinetuningConfig(**{**FAST, **finetuning}),
        files=FilesConfig(max_file_mib=1, max_tenant_gib=0.005),
    )
    accounts = Accounts.open(StoreConfig(), root / "store", ADMIN_KEY)
    shop = Shop.over(Settings(config, Home(root)), accounts.store, accounts.blobs)
    service = Finetuning(shop, LocalRunner(shop))
    try:
        async with gateway(root, *config.models, accounts=accounts, finetuning=service) as site:
            made = Works(site, accounts, shop)
            yield made
            for client in made.clients.values():
                await client.close()
    finally:
        accounts.close()


def rows(count: int = 12, more: str = "") -> bytes:
    """Sound training data."""
    lines = [
        {"messages": [{"role": "user", "content": f"question {n} {more}"},
                      {"role": "assistant", "content": f"answer {n}"}]}
        for n in range(count)
    ]  # fmt: skip
    return "\n".join(json.dumps(line) for line in lines).encode()


async def upload(client: AsyncOpenAI, content: bytes | None = None) -> str:
    """The id of an uploaded training file."""
    made = await client.files.create(file=("data.jsonl", content or rows()), purpose="fine-tune")
    return made.id


async def ended(client: AsyncOpenAI, id: str, *states: str) -> FineTuningJob:
    """The job, once it is over, or in one of `states`."""
    async with asyncio.timeout(3 * WAIT_S):
        while True:
            job = await client.fine_tuning.jobs.retrieve(id)
            if job.status in (states or OVER):
                return job
            await asyncio.sleep(0.02)


async def reached(client: AsyncOpenAI, id: str, step: int) -> None:
    """Return when the job has told of that step."""
    async with asyncio.timeout(3 * WAIT_S):
        while True:
            page = await client.fine_tuning.jobs.list_events(id, limit=50)
            found = [event for event in page.data if event.type == "metrics"]
            if found and found[0].data["step"] >= step:  # type: ignore[index]
                return
            await asyncio.sleep(0.02)


async def ask(client: AsyncOpenAI, model: str) -> str:
    """What the fake engine says; it names the adapter that was asked."""
    answer = await client.completions.create(model=model, prompt="hello you", max_tokens=4)
    return answer.choices[0].text
