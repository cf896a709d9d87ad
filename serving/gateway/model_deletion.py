"""`DELETE /v1/models/{id}`: a tenant removes what it has trained."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Depends, Request

from serving.adapters import FineTunedName
from serving.finetuning.aliases import Aliases
from serving.finetuning.shop import Shop
from serving.gateway.access import caller
from serving.gateway.admin_auth import Authorize
from serving.gateway.answers import ModelDeleted, answers
from serving.gateway.directory import Directory
from serving.gateway.errors import ApiError
from serving.store.audit import Actor


def deletion_router(shop: Shop, directory: Directory, authorize: Authorize) -> APIRouter:
    """The one route."""
    router = APIRouter(tags=["models"])
    aliases = Aliases(shop)

    @router.delete("/v1/models/{name:path}", responses=answers(ModelDeleted))
    async def delete_model(
        request: Request, name: str, actor: Actor = Depends(authorize)
    ) -> dict[str, Any]:
        """Remove a fine-tuned model, or a checkpoint's, for good. Requests under way end first."""
        identity = caller(request)
        directory.card(name, identity.may_use)
        tuned = FineTunedName.parse(name)
        found = None if tuned is None else directory.adapters.find(tuned)
        if tuned is None or found is None:
            raise ApiError(
                403, f"`{name}` is part of the stack; only fine-tuned models (`ft:…`) are deleted",
                code="model_not_deletable", param="model",
            )  # fmt: skip
        adapter, version = found
        await asyncio.to_thread(aliases.delete, adapter, version, name, actor)
        engine_name = f"{tuned.base}:{adapter}@{version}"
        await directory.models[tuned.base].pool.broadcast("unload_adapter", engine_name)
        return {"id": name, "object": "model", "deleted": True}

    return router
