"""A gateway with vector stores: the fake engine embeds, by leases; no Ray, no model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

from rag.load.config import LoadConfig
from serving.config import ModelConfig, ServeConfig
from serving.finetuning.config import FilesConfig, FinetuningConfig
from serving.finetuning.runner import LocalRunner
from serving.finetuning.service import Finetuning
from serving.finetuning.settings import Settings
from serving.finetuning.shop import Shop
from serving.home import Home
from serving.retrieval.config import RetrievalConfig
from serving.retrieval.service import Retrieval
from serving.store.accounts import Accounts
from serving.store.audit import Actor
from serving.store.blobs import BlobStore
from serving.store.config import StoreConfig
from serving.store.database import Store
from serving.store.keys import KeySpec
from tests.unit.gateway.in_process import ADMIN_KEY, Site, gateway, local

SELF = Actor("test")


@dataclass(frozen=True)
class Library:
    """A running gateway with vector stores."""

    site: Site
    accounts: Accounts
    retrieval: Retrieval
    clients: dict[str, AsyncOpenAI] = field(default_factory=dict)

    def client(self, tenant: str = "default", **rights: Any) -> AsyncOpenAI:
        """The unmodified client, with a key of the tenant; with `rights` always a new one."""
        if rights or tenant not in self.clients:
            key = ADMIN_KEY if tenant == "default" and not rights else self.key(tenant, **rights)
            url = f"{self.site.url}/v1"
            made = AsyncOpenAI(base_url=url, api_key=key, max_retries=0)
            self.clients[f"{tenant} {len(self.clients)}" if rights else tenant] = made
            return made
        return self.clients[tenant]

    def key(self, tenant: str, **rights: Any) -> str:
        """A new key; the tenant is made if it is not there."""
        if tenant not in [each.id for each in self.accounts.tenants.all()]:
            self.accounts.tenants.create(tenant, SELF)
        return self.accounts.keys.create(KeySpec(tenant, **rights), SELF).secret


def idle_retrieval(home: Home, store: Store, *models: ModelConfig) -> Retrieval:
    """The routes, and nobody who feeds the index."""
    config = ServeConfig(models=models, retrieval=RetrievalConfig(model=models[0].name))
    return Retrieval(Settings(config, home), store, BlobStore(store, str(home.store / "blobs")))


@asynccontextmanager
async def library(
    root: Path, *, answer_tokens: int = 4, **retrieval: Any
) -> AsyncIterator[Library]:
    """The gateway, over whatever an earlier one has left in `root`."""
    settings = {"model": "embedder", "poll_s": 0.05, "load": LoadConfig(workers=1)} | retrieval
    config = ServeConfig(
        models=(local("embedder"), local("chat", tokens=answer_tokens)),
        finetuning=FinetuningConfig(enabled=False),
        files=FilesConfig(max_file_mib=1),
        retrieval=RetrievalConfig(**settings),
    )
    accounts = Accounts.open(StoreConfig(), root / "store", ADMIN_KEY)
    made = Settings(config, Home(root))
    shop = Shop.over(made, accounts.store, accounts.blobs)
    service = Retrieval(made, accounts.store, accounts.blobs)
    finetuning = Finetuning(shop, LocalRunner(shop))
    try:
        async with gateway(
            root, *config.models, accounts=accounts, finetuning=finetuning, retrieval=service
        ) as site:
            running = Library(site, accounts, service)
            yield running
            for client in running.clients.values():
                await client.close()
    finally:
        accounts.close()


async def upload(client: AsyncOpenAI, name: str, text: str | bytes) -> str:
    """The id of an uploaded document."""
    content = text.encode() if isinstance(text, str) else text
    return (await client.files.create(file=(name, content), purpose="assistants")).id
