"""Admin routes of the adapter registry: versions, aliases, history; promote and roll back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict

from serving.adapters import AdapterVersion
from serving.errors import AdapterNotFound
from serving.finetuning.aliases import Aliases
from serving.finetuning.shop import Shop
from serving.gateway.admin_auth import Authorize
from serving.gateway.answers import answers
from serving.gateway.directory import Directory
from serving.store.audit import Actor
from serving.store.registry import Alias, Change, Version


class Promotion(BaseModel):
    """Which version, and what it becomes."""

    model_config = ConfigDict(extra="forbid")

    version: str
    alias: Alias = "champion"


class RegisteredVersion(BaseModel):
    """A version: what is on disk, and what is known of it."""

    adapter: str
    version: str
    base: str
    tenant: str | None
    name: str | None
    """Its `ft:` name."""
    job: str | None
    created: datetime
    rank: int
    size_bytes: int
    alias: Literal["champion", "challenger"] | None
    disabled: bool
    error: str | None
    lineage: dict[str, Any]
    metrics: dict[str, Any]
    gate: dict[str, Any] | None


class RegistryList(BaseModel):
    """Versions by adapter."""

    object: Literal["list"]
    data: list[RegisteredVersion]


class HistoryLine(BaseModel):
    """An alias came to mean another version."""

    at: datetime
    adapter: str
    alias: str
    version: str | None
    previous: str | None
    action: str
    actor: str


class HistoryList(BaseModel):
    """Changes, the newest first."""

    object: Literal["list"]
    data: list[HistoryLine]


class Aliased(BaseModel):
    """What the aliases of an adapter mean now."""

    adapter: str
    champion: str | None
    challenger: str | None


def registry_router(shop: Shop, directory: Directory, authorize: Authorize) -> APIRouter:
    """Routes under /admin/registry."""
    router = APIRouter(prefix="/admin/registry", tags=["registry"])
    aliases = Aliases(shop)

    @router.get("", responses=answers(RegistryList), dependencies=[Depends(authorize)])
    async def list_registry(
        adapter: str | None = Query(None, max_length=256), tenant: str | None = None
    ) -> dict[str, Any]:
        """Every adapter version: whose it is, where it comes from, whether it is live."""
        known = await asyncio.to_thread(shop.registry.all, adapter)
        by_version = {(each.adapter, each.version): each for each in known}
        data = [
            _view(row, by_version.get((row.name, row.version)))
            for row in directory.adapters.list()
            if adapter in (None, row.name) and tenant in (None, row.tenant)
        ]
        return {"object": "list", "data": data}

    @router.get("/{adapter}", responses=answers(RegistryList), dependencies=[Depends(authorize)])
    async def show_registered(adapter: str) -> dict[str, Any]:
        """The versions of one adapter."""
        found: dict[str, Any] = await list_registry(adapter, None)
        if not found["data"]:
            raise AdapterNotFound(f"no adapter {adapter[:80]!r}; `corral registry list` shows all")
        return found

    @router.get(
        "/{adapter}/history", responses=answers(HistoryList), dependencies=[Depends(authorize)]
    )
    def show_history(adapter: str, limit: int = Query(100, ge=1, le=1000)) -> dict[str, Any]:
        """Who has made which version the champion or the challenger, and when."""
        found = shop.registry.history(adapter, limit)
        return {"object": "list", "data": [_line(change) for change in found]}

    @router.post("/{adapter}/promote", responses=answers(Aliased))
    async def promote(
        adapter: str, promotion: Promotion, actor: Actor = Depends(authorize)
    ) -> dict[str, Any]:
        """Load a version on every replica, then make it the champion, which `base:adapter`
        means, or the challenger, `base:adapter@challenger`. Nothing changes if one refuses."""
        await _load(directory, adapter, promotion.version)
        state = await asyncio.to_thread(
            aliases.promote, adapter, promotion.version, promotion.alias, actor
        )
        return {"adapter": adapter, "champion": state.live, "challenger": state.challenger}

    @router.post("/{adapter}/rollback", responses=answers(Aliased))
    async def rollback(adapter: str, actor: Actor = Depends(authorize)) -> dict[str, Any]:
        """Make the champion what it was before the last promotion."""
        target = await asyncio.to_thread(aliases.before, adapter)
        await _load(directory, adapter, target)
        state = await asyncio.to_thread(aliases.rollback, adapter, actor)
        return {"adapter": adapter, "champion": state.live, "challenger": state.challenger}

    return router


async def _load(directory: Directory, adapter: str, version: str) -> None:
    """On every replica of its base. Raises AdapterNotFound, AdapterRefused."""
    rows = [v for v in directory.adapters.list() if (v.name, v.version) == (adapter, version)]
    if not rows or rows[0].base not in directory.models:
        raise AdapterNotFound(
            f"no version {version[:80]!r} of adapter {adapter[:80]!r} that is served here; "
            "`corral registry list` shows all"
        )
    pool = directory.models[rows[0].base].pool
    await pool.broadcast("load_adapter", rows[0].engine_name, str(rows[0].path))


def _view(row: AdapterVersion, known: Version | None) -> dict[str, Any]:
    alias = "champion" if row.live else "challenger" if row.challenger else None
    name = known.name if known else next(iter(row.names), None)
    return {
        "adapter": row.name, "version": row.version, "base": row.base, "tenant": row.tenant,
        "name": name, "job": known.job_id if known else None,
        "created": datetime.fromtimestamp(row.created, UTC), "rank": row.rank,
        "size_bytes": row.size_bytes, "alias": alias, "disabled": row.disabled,
        "error": row.error, "lineage": known.lineage if known else {},
        "metrics": known.metrics if known else {}, "gate": known.gate if known else None,
    }  # fmt: skip


def _line(change: Change) -> dict[str, Any]:
    return {
        "at": datetime.fromtimestamp(change.at_us / 1e6, UTC), "adapter": change.adapter,
        "alias": change.alias, "version": change.version, "previous": change.previous,
        "action": change.action, "actor": change.actor,
    }  # fmt: skip
