"""`/v1/vector_stores`, as OpenAI has it. Each tenant sees its own, a key those it is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from fastapi import APIRouter, Depends, Query, Request

from rag.errors import BadFilter, RagError
from serving.gateway.access import caller
from serving.gateway.admin_auth import Authorize
from serving.gateway.answers import answers
from serving.gateway.errors import ApiError
from serving.gateway.vector_models import (
    Chunking,
    FileRequest,
    SearchRequest,
    StoreChange,
    StoreRequest,
    to_search,
)
from serving.gateway.vector_views import (
    SearchPage,
    StoreDeleted,
    StoreList,
    StoreView,
    list_view,
    store_view,
)
from serving.retrieval.service import Retrieval
from serving.store.audit import Actor
from serving.store.errors import NotFound
from serving.store.identity import Identity
from serving.store.vector_rows import FileSpec, Page, StoreSpec, VectorStore

Limit = Query(20, ge=1, le=100)
After = Query(None, max_length=64)
Before = Query(None, max_length=64)
Order = Literal["asc", "desc"]
PREFIX = "/v1/vector_stores"


def stores_router(retrieval: Retrieval, authorize: Authorize) -> APIRouter:
    """Routes of the stores themselves. They ask the database, and so run on threads."""
    router = APIRouter(prefix=PREFIX, tags=["vector stores"])
    stores = retrieval.stores

    @router.post("", responses=answers(StoreView))
    def create_vector_store(
        request: Request, asked: StoreRequest, actor: Actor = Depends(authorize)
    ) -> dict[str, Any]:
        """Make a store, and put `file_ids` into it, if there are any."""
        identity = demand(retrieval, request)
        name = asked.name or ""
        _demand_name(identity, name)
        first = [
            FileRequest(file_id=id, chunking_strategy=asked.chunking_strategy)
            for id in asked.file_ids or ()
        ]
        specs = file_specs(retrieval, identity.tenant_id, first)
        made = stores.create(
            StoreSpec(
                identity.tenant_id, name, asked.description, asked.metadata,
                None if asked.expires_after is None else asked.expires_after.days,
            ),
            actor,
        )  # fmt: skip
        if specs:
            retrieval.files.add(made.id, specs)
            retrieval.wake()
        return store_view(stores.get(identity.tenant_id, made.id))

    @router.get("", responses=answers(StoreList), dependencies=[Depends(authorize)])
    def list_vector_stores(
        request: Request,
        after: str | None = After,
        before: str | None = Before,
        limit: int = Limit,
        order: Order = "desc",
    ) -> dict[str, Any]:
        """Your stores, the newest first unless `order` is `asc`."""
        identity = demand(retrieval, request)
        allowed = None if identity.stores.patterns is None else _allowed(identity)
        page = Page(limit, order == "desc", after, before)
        found = stores.page(identity.tenant_id, page, allowed)
        return list_view([store_view(store) for store in found.data], found.has_more)

    @router.get("/{store_id}", responses=answers(StoreView), dependencies=[Depends(authorize)])
    def retrieve_vector_store(request: Request, store_id: str) -> dict[str, Any]:
        """One store."""
        return store_view(opened(retrieval, request, store_id))

    @router.post("/{store_id}", responses=answers(StoreView))
    def modify_vector_store(
        request: Request, store_id: str, asked: StoreChange, actor: Actor = Depends(authorize)
    ) -> dict[str, Any]:
        """Change name, metadata or expiry; what is not named stays."""
        found = opened(retrieval, request, store_id)
        changes: dict[str, Any] = {}
        if "name" in asked.model_fields_set:
            changes["name"] = asked.name or ""
            if not caller(request).stores(store_id):
                _demand_name(caller(request), changes["name"])
        if "metadata" in asked.model_fields_set:
            changes["metadata"] = asked.metadata
        if "expires_after" in asked.model_fields_set:
            after = asked.expires_after
            changes["expires_days"] = None if after is None else after.days
        return store_view(stores.change(found.tenant_id, found.id, changes, actor))

    @router.delete("/{store_id}", responses=answers(StoreDeleted))
    def delete_vector_store(
        request: Request, store_id: str, actor: Actor = Depends(authorize)
    ) -> dict[str, Any]:
        """Remove a store with all its passages. The uploaded files stay."""
        found = opened(retrieval, request, store_id)
        stores.delete(found.tenant_id, found.id, actor)
        retrieval.wake()
        return {"id": found.id, "object": "vector_store.deleted", "deleted": True}

    @router.post(
        "/{store_id}/search", responses=answers(SearchPage), dependencies=[Depends(authorize)]
    )
    def search_vector_store(
        request: Request, store_id: str, asked: SearchRequest
    ) -> dict[str, Any]:
        """The passages that fit a question best, of files whose attributes fulfil `filters`."""
        store = lively(opened(retrieval, request, store_id))
        if asked.rewrite_query:
            raise ApiError(
                400, "`rewrite_query` is not done here; leave it out", param="rewrite_query",
                code="unsupported_value",
            )  # fmt: skip
        with translated():
            data = found_passages(retrieval, store, asked)
        stores.touch(store)
        return {
            "object": "vector_store.search_results.page",
            "search_query": asked.queries,
            "data": data,
            "has_more": False,
            "next_page": None,
        }

    return router


def found_passages(
    retrieval: Retrieval, store: VectorStore, asked: SearchRequest
) -> list[dict[str, Any]]:
    """Search results of one store. Raises RagError, CorralError."""
    from serving.retrieval.finding import find

    return [
        {
            "file_id": one.file.file_id,
            "filename": one.file.filename,
            "score": one.hit.score,
            "attributes": dict(one.file.attributes or {}),
            "content": [{"type": "text", "text": one.hit.chunk.text}],
        }
        for one in find(retrieval, store, to_search(asked.queries, asked))
    ]


def demand(retrieval: Retrieval, request: Request) -> Identity:
    """Who asks, where there are vector stores. Raises ApiError (403)."""
    if retrieval.fault is not None:
        raise ApiError(403, retrieval.fault, code="retrieval_disabled")
    return caller(request)


def opened(retrieval: Retrieval, request: Request, store_id: str) -> VectorStore:
    """The store, if who asks may know of it. Raises ApiError (403, 404), NotFound."""
    return permitted(retrieval, demand(retrieval, request), store_id)


def permitted(retrieval: Retrieval, identity: Identity, store_id: str) -> VectorStore:
    """The store, if the key may know of it. Raises ApiError (403, 404), NotFound."""
    if retrieval.fault is not None:
        raise ApiError(403, retrieval.fault, code="retrieval_disabled")
    found = retrieval.stores.get(identity.tenant_id, store_id)
    if not _allowed(identity)(found.id, found.name):
        raise NotFound(f"no vector store {store_id[:64]!r}")
    return found


def lively(store: VectorStore) -> VectorStore:
    """The same, unless it has expired. Raises ApiError (400)."""
    if store.expired:
        raise ApiError(
            400, f"the vector store {store.id} has expired; make a new one",
            code="vector_store_expired",
        )  # fmt: skip
    return store


def file_specs(retrieval: Retrieval, tenant_id: str, asked: list[FileRequest]) -> list[FileSpec]:
    """The files as they are to be indexed. Raises ApiError (400, 404)."""
    ids = [each.file_id for each in asked]
    if len(set(ids)) < len(ids):
        raise ApiError(400, "a file is named twice", param="file_ids")
    blobs = retrieval.blobs.named(tenant_id, ids)
    for id in ids:
        if id not in blobs:
            raise ApiError(404, f"no file {id!r}", code="not_found", param="file_id")
    return [
        FileSpec(
            each.file_id, blobs[each.file_id].name, each.attributes, _sizes(each.chunking_strategy)
        )
        for each in asked
    ]


@contextmanager
def translated() -> Iterator[None]:
    """rag's errors as HTTP's."""
    try:
        yield
    except BadFilter as exc:
        raise ApiError(400, str(exc), code="invalid_filter", param="filters") from exc
    except RagError as exc:
        raise ApiError(
            503, str(exc), code="retrieval_unavailable", headers=[(b"retry-after", b"5")]
        ) from exc


def _sizes(chunking: Chunking | None) -> dict[str, int] | None:
    return None if chunking is None else chunking.sizes


def _allowed(identity: Identity) -> Any:
    """A store may be allowed by its id or by its name."""
    return lambda id, name: identity.stores(id) or (bool(name) and identity.stores(name))


def _demand_name(identity: Identity, name: str) -> None:
    if not identity.stores(name):
        raise ApiError(
            403, "this API key may only use vector stores of certain names, and this is none",
            code="store_not_allowed", param="name",
        )  # fmt: skip
