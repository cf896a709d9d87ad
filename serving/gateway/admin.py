"""Admin routes: adapters and status, for whoever holds the admin key."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict

from serving.errors import AdapterNotFound, AdapterRefused
from serving.finetuning.aliases import Aliases
from serving.gateway.admin_auth import Authorize
from serving.gateway.answers import (
    AdapterList,
    AdapterLoaded,
    AdaptersUnloaded,
    AdapterVersions,
    Status,
    answers,
)
from serving.gateway.directory import Directory
from serving.gateway.pool import statuses
from serving.store.audit import Actor


class AdapterAction(BaseModel):
    """Which adapter, and which version of it; without one, the live or the newest."""

    model_config = ConfigDict(extra="forbid")

    name: str
    version: str | None = None


def admin_router(
    directory: Directory, authorize: Authorize, aliases: Aliases | None = None
) -> APIRouter:
    """Routes under /admin, for whom `authorize` lets in. `aliases` notes who makes what live."""
    router = APIRouter(prefix="/admin", tags=["admin"], dependencies=[Depends(authorize)])
    store = directory.adapters

    @router.get("/adapters", responses=answers(AdapterList))
    async def list_adapters() -> dict[str, Any]:
        """Every adapter version on disk, with what keeps a refused one from serving."""
        return {"object": "list", "data": [_public(asdict(v)) for v in store.list()]}

    @router.get("/adapters/{name}", responses=answers(AdapterVersions))
    async def show_adapter(name: str) -> dict[str, Any]:
        """All versions of one adapter, and the replicas that have them loaded."""
        versions = [asdict(v) for v in store.list() if v.name == name]
        if not versions:
            raise AdapterNotFound(f"no adapter {name!r}; `corral adapters list` shows all")
        loaded = [
            {"replica": status["replica"], "adapter": engine_name}
            for base in {version["base"] for version in versions}
            if base in directory.models
            for status in await directory.models[base].pool.broadcast("status")
            for engine_name in status["adapters"]
            if engine_name.partition(":")[2].partition("@")[0] == name
        ]
        return {"name": name, "versions": [_public(v) for v in versions], "loaded": loaded}

    @router.post("/adapters/load", responses=answers(AdapterLoaded))
    async def load_adapter(
        action: AdapterAction, actor: Actor = Depends(authorize)
    ) -> dict[str, Any]:
        """Load on every replica, then make the version live. Nothing changes when one refuses."""
        base, version = _locate(directory, action)
        was_disabled = store.is_disabled(action.name, version)
        store.enable(action.name, version)
        try:
            ref = store.resolve(base, action.name, version)
            await directory.models[base].pool.broadcast(
                "load_adapter", ref.engine_name, str(ref.path)
            )
        except Exception:
            if was_disabled:
                store.disable(action.name, version)
            raise
        if aliases is None:
            store.set_live(action.name, version)
        else:
            await asyncio.to_thread(aliases.promote, action.name, version, "champion", actor)
        return {"loaded": ref.engine_name, "live": f"{base}:{action.name}"}

    @router.post("/adapters/unload", responses=answers(AdaptersUnloaded))
    async def unload_adapter(action: AdapterAction) -> dict[str, Any]:
        """Stop serving; running requests end first. Without a version, all of them."""
        versions = [
            v for v in store.list() if v.name == action.name and action.version in (None, v.version)
        ]
        if not versions:
            raise AdapterNotFound(f"no adapter {action.name!r}; `corral adapters list` shows all")
        store.disable(action.name, action.version)
        for version in versions:
            if version.base in directory.models:
                engine_name = f"{version.base}:{version.name}@{version.version}"
                await directory.models[version.base].pool.broadcast("unload_adapter", engine_name)
        return {"unloaded": [f"{v.base}:{v.name}@{v.version}" for v in versions]}

    @router.get("/status", responses=answers(Status))
    async def status() -> dict[str, Any]:
        """Every replica: running requests, loaded adapters, engine metrics."""
        pools = (served.pool for served in directory.models.values())
        answers = await asyncio.gather(*map(statuses, pools))
        replicas = [status for answer in answers for status in answer]
        return {"models": sorted(directory.models), "replicas": replicas}

    return router


def _locate(directory: Directory, action: AdapterAction) -> tuple[str, str]:
    """Base model and version of an action. Raises AdapterNotFound, AdapterRefused."""
    found = [
        version
        for version in directory.adapters.list()
        if version.name == action.name and action.version in (None, version.version)
    ]
    if not found:
        wanted = action.name + (f"@{action.version}" if action.version else "")
        raise AdapterNotFound(f"no adapter {wanted!r}; `corral adapters list` shows all")
    chosen = next((version for version in found if version.live), found[-1])
    if chosen.base not in directory.models:
        raise AdapterRefused(chosen.error or f"{chosen.engine_name} fits no served model")
    return chosen.base, chosen.version


def _public(version: dict[str, Any]) -> dict[str, Any]:
    return {key: str(value) if key == "path" else value for key, value in version.items()}
