"""`/v1/files`, as OpenAI has it: what clients upload, and results. Each tenant sees its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse

from serving.finetuning.config import FilesConfig
from serving.gateway.access import caller
from serving.gateway.admin_auth import Authorize
from serving.gateway.answers import FileDeleted, FileList, FileView, answers
from serving.gateway.errors import ApiError
from serving.gateway.uploads import uploaded
from serving.store import audit
from serving.store.audit import Actor
from serving.store.blobs import Blob, BlobStore
from serving.store.database import Store

PURPOSES = ("fine-tune", "assistants", "batch", "user_data", "evals")
"""Those of uploads. `fine-tune-results` are made by jobs."""
MIN_LIFE_S, MAX_LIFE_S = 3600, 30 * 86_400


def files_router(
    store: Store, blobs: BlobStore, config: FilesConfig, stall_s: float, authorize: Authorize
) -> APIRouter:
    """Routes under /v1/files."""
    router = APIRouter(prefix="/v1/files", tags=["files"])
    max_bytes = int(config.max_file_mib * 2**20)
    max_tenant = int(config.max_tenant_gib * 2**30)

    @router.post("", responses=answers(FileView), openapi_extra=_UPLOAD)
    async def create_file(request: Request, actor: Actor = Depends(authorize)) -> dict[str, Any]:
        """Upload a file: `multipart/form-data` with `file` and `purpose`, and, for one that ends
        by itself, `expires_after[anchor]` (`created_at`) and `expires_after[seconds]`."""
        tenant = caller(request).tenant_id
        async with uploaded(request, max_bytes, stall_s) as upload:
            purpose = _purpose(upload.fields.get("purpose"))
            lives_s = _life(upload.fields)
            if upload.size == 0:
                raise ApiError(400, "the file is empty", param="file")
            held = await asyncio.to_thread(blobs.held_bytes, tenant)
            if held + upload.size > max_tenant:
                raise ApiError(
                    413, f"your files would take more than {config.max_tenant_gib:g} GiB together; "
                    "delete some", param="file",
                )  # fmt: skip
            blob = await asyncio.to_thread(
                blobs.put, tenant, upload.chunks(), name=upload.filename, purpose=purpose,
                max_bytes=max_bytes, lives_s=lives_s,
            )  # fmt: skip
        await asyncio.to_thread(_note, store, actor, "file.create", blob)
        return view(blob)

    @router.get("", responses=answers(FileList), dependencies=[Depends(authorize)])
    def list_files(
        request: Request,
        after: str | None = Query(None, max_length=64),
        limit: int = Query(10_000, ge=1, le=10_000),
        order: Literal["asc", "desc"] = "desc",
        purpose: str | None = Query(None, max_length=64),
    ) -> dict[str, Any]:
        """Your files, the newest first unless `order` is `asc`; `after` is the last one's id."""
        found = blobs.page(
            caller(request).tenant_id, purpose=purpose, after=after, limit=limit + 1,
            oldest_first=order == "asc",
        )  # fmt: skip
        data = [view(blob) for blob in found[:limit]]
        ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else _NO_ENDS
        return {"object": "list", "data": data, "has_more": len(found) > limit, **ends}

    @router.get("/{file_id}", responses=answers(FileView), dependencies=[Depends(authorize)])
    def retrieve_file(request: Request, file_id: str) -> dict[str, Any]:
        """What is known of one file."""
        return view(blobs.get(caller(request).tenant_id, file_id))

    @router.delete("/{file_id}", responses=answers(FileDeleted))
    def delete_file(
        request: Request, file_id: str, actor: Actor = Depends(authorize)
    ) -> dict[str, Any]:
        """Remove a file for good."""
        blob = blobs.get(caller(request).tenant_id, file_id)
        blobs.delete(blob.tenant_id, blob.id)
        _note(store, actor, "file.delete", blob)
        return {"id": blob.id, "object": "file", "deleted": True}

    @router.get(
        "/{file_id}/content", response_class=StreamingResponse, responses=_BYTES,
        dependencies=[Depends(authorize)],
    )  # fmt: skip
    def file_content(request: Request, file_id: str) -> StreamingResponse:
        """Its bytes, as they were uploaded."""
        blob = blobs.get(caller(request).tenant_id, file_id)
        return StreamingResponse(
            _content(blobs, blob),
            media_type="application/octet-stream",
            headers={"content-length": str(blob.size), "content-disposition": "attachment"},
        )

    return router


def view(blob: Blob) -> dict[str, Any]:
    """OpenAI's file object."""
    return {
        "id": blob.id,
        "object": "file",
        "bytes": blob.size,
        "created_at": blob.created_us // 1_000_000,
        "expires_at": None if blob.expires_us is None else blob.expires_us // 1_000_000,
        "filename": blob.name,
        "purpose": blob.purpose,
        "status": "processed",
        "status_details": None,
    }


_NO_ENDS = {"first_id": None, "last_id": None}
_BYTES: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": {}}}}
_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": list(PURPOSES)},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {"type": "integer"},
                    },
                }
            }
        },
    }
}


def _content(blobs: BlobStore, blob: Blob) -> Iterator[bytes]:
    return blobs.open(blob.tenant_id, blob.id)


def _purpose(given: str | None) -> str:
    if given not in PURPOSES:
        raise ApiError(400, f"`purpose` must be one of {', '.join(PURPOSES)}", param="purpose")
    return given


def _life(fields: dict[str, str]) -> float | None:
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise ApiError(
            400, "`expires_after[anchor]` must be `created_at`", param="expires_after[anchor]"
        )
    given = int(seconds) if seconds is not None and seconds[:9].isdecimal() else -1
    if not MIN_LIFE_S <= given <= MAX_LIFE_S:
        raise ApiError(
            400,
            f"`expires_after[seconds]` must be a whole number from {MIN_LIFE_S} to {MAX_LIFE_S}",
            param="expires_after[seconds]",
        )
    return float(given)


def _note(store: Store, actor: Actor, action: str, blob: Blob) -> None:
    detail = {"purpose": blob.purpose, "bytes": blob.size}
    with store.write() as connection:
        audit.record(
            connection, store, actor, action, blob.id, tenant_id=blob.tenant_id, detail=detail
        )
