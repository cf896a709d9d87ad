"""`/v1/vector_stores/{id}/files` and `/file_batches`: what is in a store."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from serving.gateway.admin_auth import Authorize
from serving.gateway.answers import answers
from serving.gateway.errors import ApiError
from serving.gateway.vector_models import BatchRequest, FileChange, FileRequest
from serving.gateway.vector_stores import (
    PREFIX,
    After,
    Before,
    Limit,
    Order,
    file_specs,
    lively,
    opened,
    translated,
)
from serving.gateway.vector_views import (
    BatchView,
    ContentPage,
    StoreFileDeleted,
    StoreFileList,
    StoreFileView,
    batch_view,
    file_view,
    list_view,
)
from serving.retrieval.service import Retrieval
from serving.store.audit import Actor
from serving.store.errors import Conflict
from serving.store.vector_rows import Page, VectorStore

Status = Literal["in_progress", "completed", "failed", "cancelled"]
_Filter = Query(None, alias="filter")
POLL_AFTER = "openai-poll-after-ms"
_POLL_MS = "200"
"""When to ask again after what is not done yet."""


def store_files_router(retrieval: Retrieval, authorize: Authorize) -> APIRouter:
    """Routes of single files."""
    router = APIRouter(prefix=PREFIX, tags=["vector stores"])
    files = retrieval.files

    @router.post("/{store_id}/files", responses=answers(StoreFileView))
    def create_vector_store_file(
        request: Request, store_id: str, asked: FileRequest, _: Actor = Depends(authorize)
    ) -> dict[str, Any]:
        """Put an uploaded file into a store. One that is in it already is indexed anew."""
        store = _add(retrieval, request, store_id, [asked])[0]
        return file_view(files.get(store.id, asked.file_id))

    @router.get(
        "/{store_id}/files", responses=answers(StoreFileList), dependencies=[Depends(authorize)]
    )
    def list_vector_store_files(
        request: Request,
        store_id: str,
        after: str | None = After,
        before: str | None = Before,
        limit: int = Limit,
        order: Order = "desc",
        status: Status | None = _Filter,
    ) -> dict[str, Any]:
        """Files of a store, those added last first unless `order` is `asc`."""
        store = opened(retrieval, request, store_id)
        found = files.page(store.id, Page(limit, order == "desc", after, before), status=status)
        return list_view([file_view(file) for file in found.data], found.has_more)

    @router.get(
        "/{store_id}/files/{file_id}", responses=answers(StoreFileView),
        dependencies=[Depends(authorize)],
    )  # fmt: skip
    def retrieve_vector_store_file(
        request: Request, response: Response, store_id: str, file_id: str
    ) -> dict[str, Any]:
        """One file: whether it can be searched, or why it cannot."""
        found = files.get(opened(retrieval, request, store_id).id, file_id)
        if found.status == "in_progress":
            response.headers[POLL_AFTER] = _POLL_MS
        return file_view(found)

    @router.post("/{store_id}/files/{file_id}", responses=answers(StoreFileView))
    def update_vector_store_file(
        request: Request,
        store_id: str,
        file_id: str,
        asked: FileChange,
        _: Actor = Depends(authorize),
    ) -> dict[str, Any]:
        """Replace a file's attributes."""
        store = opened(retrieval, request, store_id)
        found = files.describe(store.id, file_id, asked.attributes)
        retrieval.wake()
        return file_view(found)

    @router.delete("/{store_id}/files/{file_id}", responses=answers(StoreFileDeleted))
    def delete_vector_store_file(
        request: Request, store_id: str, file_id: str, _: Actor = Depends(authorize)
    ) -> dict[str, Any]:
        """Take a file out of a store. The upload itself stays."""
        store = opened(retrieval, request, store_id)
        files.remove(store.id, file_id)
        retrieval.wake()
        return {"id": file_id, "object": "vector_store.file.deleted", "deleted": True}

    @router.get(
        "/{store_id}/files/{file_id}/content", responses=answers(ContentPage),
        dependencies=[Depends(authorize)],
    )  # fmt: skip
    def vector_store_file_content(request: Request, store_id: str, file_id: str) -> dict[str, Any]:
        """What was read of a file, passage by passage."""
        store = opened(retrieval, request, store_id)
        return {
            "object": "vector_store.file_content.page",
            "data": _content(retrieval, store, file_id),
            "has_more": False,
            "next_page": None,
        }

    return router


def store_batches_router(retrieval: Retrieval, authorize: Authorize) -> APIRouter:
    """Routes of files that are added together."""
    router = APIRouter(prefix=PREFIX + "/{store_id}/file_batches", tags=["vector stores"])
    files = retrieval.files

    @router.post("", responses=answers(BatchView))
    def create_vector_store_file_batch(
        request: Request, store_id: str, asked: BatchRequest, _: Actor = Depends(authorize)
    ) -> dict[str, Any]:
        """Put files into a store together."""
        store, id = _add(retrieval, request, store_id, asked.all_files(), batch=True)
        assert id is not None
        return batch_view(files.batch(store.id, id))

    @router.get("/{batch_id}", responses=answers(BatchView), dependencies=[Depends(authorize)])
    def retrieve_vector_store_file_batch(
        request: Request, response: Response, store_id: str, batch_id: str
    ) -> dict[str, Any]:
        """How far a batch is."""
        found = files.batch(opened(retrieval, request, store_id).id, batch_id)
        if found.counts.in_progress:
            response.headers[POLL_AFTER] = _POLL_MS
        return batch_view(found)

    @router.post("/{batch_id}/cancel", responses=answers(BatchView))
    def cancel_vector_store_file_batch(
        request: Request, store_id: str, batch_id: str, _: Actor = Depends(authorize)
    ) -> dict[str, Any]:
        """Leave out what is not indexed yet; the rest stays."""
        store = opened(retrieval, request, store_id)
        try:
            found = files.cancel(store.id, batch_id)
        except Conflict as exc:
            raise ApiError(400, str(exc), code="invalid_batch_state") from exc
        retrieval.wake()
        return batch_view(found)

    @router.get(
        "/{batch_id}/files", responses=answers(StoreFileList), dependencies=[Depends(authorize)]
    )
    def list_files_in_vector_store_batch(
        request: Request,
        store_id: str,
        batch_id: str,
        after: str | None = After,
        before: str | None = Before,
        limit: int = Limit,
        order: Order = "desc",
        status: Status | None = _Filter,
    ) -> dict[str, Any]:
        """Files of a batch."""
        store = opened(retrieval, request, store_id)
        files.batch(store.id, batch_id)
        page = Page(limit, order == "desc", after, before)
        found = files.page(store.id, page, status=status, batch_id=batch_id)
        return list_view([file_view(file) for file in found.data], found.has_more)

    return router


def _add(
    retrieval: Retrieval,
    request: Request,
    store_id: str,
    asked: list[FileRequest],
    *,
    batch: bool = False,
) -> tuple[VectorStore, str | None]:
    store = lively(opened(retrieval, request, store_id))
    specs = file_specs(retrieval, store.tenant_id, asked)
    most = retrieval.config.max_store_files
    if store.counts.total + len(specs) > most:
        raise ApiError(
            400, f"a vector store holds at most {most} files; make another one",
            code="too_many_files",
        )  # fmt: skip
    id = retrieval.files.add(store.id, specs, batch=batch)
    retrieval.stores.touch(store)
    retrieval.wake()
    return store, id


def _content(retrieval: Retrieval, store: VectorStore, file_id: str) -> list[dict[str, Any]]:
    from rag.types import Scope
    from serving.retrieval.library import file_uri

    file = retrieval.files.get(store.id, file_id)
    if file.status != "completed":
        raise ApiError(
            400, f"{file_id} is {file.status}: only what is completed has content",
            code="file_not_completed",
        )  # fmt: skip
    with translated():
        chunks = retrieval.library().passages(
            Scope(store.tenant_id, store.id), file_uri(file.file_id, file.filename)
        )
    return [{"type": "text", "text": chunk.text} for chunk in chunks]
