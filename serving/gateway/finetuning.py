"""`/v1/fine_tuning/jobs`, as OpenAI has it. Each tenant sees its own jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, Query, Request

from serving.finetuning.run_config import CannotTrain, resolved
from serving.finetuning.shop import Shop
from serving.gateway.access import caller
from serving.gateway.admin_auth import Authorize
from serving.gateway.answers import answers
from serving.gateway.directory import Directory
from serving.gateway.errors import ApiError
from serving.gateway.finetuning_models import (
    CheckpointList,
    EventList,
    JobList,
    JobRequest,
    JobView,
    Method,
    checkpoint_view,
    event_view,
    job_view,
    metadata_filter,
)
from serving.store.audit import Actor
from serving.store.errors import Conflict, NotFound
from serving.store.identity import Identity
from serving.store.jobs import Job, JobSpec, new_seed

Limit = Query(20, ge=1, le=100)
After = Query(None, max_length=64)


def finetuning_router(shop: Shop, directory: Directory, authorize: Authorize) -> APIRouter:
    """Routes under /v1/fine_tuning/jobs. They ask the database, and so run on threads."""
    router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["fine-tuning"])
    jobs, events = shop.jobs, shop.events
    config = shop.settings.config.finetuning

    @router.post("", responses=answers(JobView))
    def create_job(
        request: Request, asked: JobRequest, actor: Actor = Depends(authorize)
    ) -> dict[str, Any]:
        """Train an adapter of a base model on an uploaded file. Its data is looked through at
        once; every bad row is named in the job's `error`."""
        if not config.enabled:
            raise ApiError(403, "this stack takes no fine-tuning jobs: finetuning.enabled is off")
        spec = _spec(shop, directory, caller(request), asked)
        try:
            return job_view(jobs.create(spec, actor, max_open=config.max_open_jobs))
        except Conflict as exc:
            raise ApiError(429, str(exc), code="rate_limit_exceeded") from exc

    @router.get("", responses=answers(JobList), dependencies=[Depends(authorize)])
    def list_jobs(
        request: Request, after: str | None = After, limit: int = Limit
    ) -> dict[str, Any]:
        """Your jobs, the newest first. `metadata[key]=value` keeps those that have it."""
        wanted = metadata_filter(request.query_params)
        found = jobs.page(
            caller(request).tenant_id, after=after, limit=limit + 1, metadata=wanted or None
        )
        return _page([job_view(job) for job in found], limit)

    @router.get("/{job_id}", responses=answers(JobView), dependencies=[Depends(authorize)])
    def retrieve_job(request: Request, job_id: str) -> dict[str, Any]:
        """One job."""
        return job_view(jobs.get(caller(request).tenant_id, job_id))

    @router.get("/{job_id}/events", responses=answers(EventList), dependencies=[Depends(authorize)])
    def list_events(
        request: Request, job_id: str, after: str | None = After, limit: int = Limit
    ) -> dict[str, Any]:
        """What has happened in a job, the newest first."""
        jobs.get(caller(request).tenant_id, job_id)
        found = events.page(job_id, after=after, limit=limit + 1)
        return _page([event_view(event) for event in found], limit)

    @router.get(
        "/{job_id}/checkpoints", responses=answers(CheckpointList),
        dependencies=[Depends(authorize)],
    )  # fmt: skip
    def list_checkpoints(
        request: Request,
        job_id: str,
        after: str | None = After,
        limit: int = Query(10, ge=1, le=100),
    ) -> dict[str, Any]:
        """Steps whose adapters can be used by name, the newest first."""
        jobs.get(caller(request).tenant_id, job_id)
        found = events.checkpoints(job_id, after=after, limit=limit + 1)
        page = _page([checkpoint_view(each) for each in found], limit)
        data = page["data"]
        ends = (data[0]["id"], data[-1]["id"]) if data else (None, None)
        return page | {"first_id": ends[0], "last_id": ends[1]}

    _add_decisions(router, jobs, authorize)
    return router


def _add_decisions(router: APIRouter, jobs: Any, authorize: Authorize) -> None:
    def decide(verb: Callable[..., Job], request: Request, job_id: str, actor: Actor) -> Any:
        try:
            return job_view(verb(caller(request).tenant_id, job_id, actor))
        except Conflict as exc:
            raise ApiError(400, str(exc), code="invalid_job_state") from exc

    @router.post("/{job_id}/cancel", responses=answers(JobView))
    def cancel_job(
        request: Request, job_id: str, actor: Actor = Depends(authorize)
    ) -> dict[str, Any]:
        """End a job for good. Its checkpoints stay usable."""
        found: dict[str, Any] = decide(jobs.cancel, request, job_id, actor)
        return found

    @router.post("/{job_id}/pause", responses=answers(JobView))
    def pause_job(
        request: Request, job_id: str, actor: Actor = Depends(authorize)
    ) -> dict[str, Any]:
        """Stop with a checkpoint, until the job is resumed."""
        found: dict[str, Any] = decide(jobs.pause, request, job_id, actor)
        return found

    @router.post("/{job_id}/resume", responses=answers(JobView))
    def resume_job(
        request: Request, job_id: str, actor: Actor = Depends(authorize)
    ) -> dict[str, Any]:
        """Queue a paused job again; it goes on from its last checkpoint."""
        found: dict[str, Any] = decide(jobs.resume, request, job_id, actor)
        return found


def _spec(shop: Shop, directory: Directory, identity: Identity, asked: JobRequest) -> JobSpec:
    """The checked request. Raises ApiError (400, 404)."""
    if asked.integrations:
        raise ApiError(
            400, "no integrations are offered: runs are tracked with MLflow by the stack itself; "
            "leave the field out", code="unsupported_integration", param="integrations",
        )  # fmt: skip
    _check_model(directory, identity, asked.model)
    for param in ("training_file", "validation_file"):
        id = getattr(asked, param)
        if id is not None:
            _check_file(shop, identity.tenant_id, id, param)
    if asked.validation_file == asked.training_file:
        raise ApiError(
            400, "`validation_file` is the training file; hold other data out, or leave it out",
            param="validation_file",
        )  # fmt: skip
    return JobSpec(
        tenant_id=identity.tenant_id,
        model=asked.model,
        method=_method(shop, asked),
        training_file=asked.training_file,
        validation_file=asked.validation_file,
        suffix=asked.suffix,
        seed=new_seed() if asked.seed is None else asked.seed,
        metadata=asked.metadata,
    )


def _check_model(directory: Directory, identity: Identity, name: str) -> None:
    trainable = [
        base
        for base, served in directory.models.items()
        if (lora := getattr(served.config.engine, "lora", None)) is not None and lora.enabled
        if identity.may_use(base)
    ]
    if name in trainable:
        return
    why = "is none that can be fine-tuned"
    if name.startswith("ft:") or ":" in name:
        why = "is an adapter, and fine-tuning begins from a base model"
    raise ApiError(
        400, f"model `{name}` {why}; those that can: {', '.join(trainable) or 'none'}",
        code="model_not_available", param="model",
    )  # fmt: skip


def _check_file(shop: Shop, tenant: str, id: str, param: str) -> None:
    try:
        blob = shop.blobs.get(tenant, id)
    except NotFound as exc:
        raise ApiError(400, f"`{param}`: {exc}", code="file_not_found", param=param) from exc
    if blob.purpose != "fine-tune":
        raise ApiError(
            400, f"`{param}`: {id} has purpose {blob.purpose!r}; upload it with `fine-tune`",
            code="invalid_file_purpose", param=param,
        )  # fmt: skip


def _method(shop: Shop, asked: JobRequest) -> dict[str, Any]:
    """The method with every setting, `auto` resolved to what will be used."""
    method = asked.method or Method()
    if method.type == "reinforcement" or method.reinforcement is not None:
        raise ApiError(
            400, "`method`: reinforcement is not offered; supervised and dpo are",
            code="unsupported_method", param="method.type",
        )  # fmt: skip
    given = method.supervised if method.type == "supervised" else method.dpo
    other = "dpo" if method.type == "supervised" else "supervised"
    if getattr(method, other) is not None:
        raise ApiError(
            400, f"`method.{other}` does not go with type `{method.type}`", param=f"method.{other}"
        )
    wished: dict[str, Any] = {}
    if asked.hyperparameters is not None:
        if method.type == "dpo":
            raise ApiError(
                400, "`hyperparameters` are those of supervised training; for dpo use "
                "`method.dpo.hyperparameters`", param="hyperparameters",
            )  # fmt: skip
        wished |= asked.hyperparameters.model_dump(exclude_none=True)
    if given is not None:
        wished |= given.hyperparameters.model_dump(exclude_none=True)
    try:
        values = resolved(shop.settings, asked.model, method.type, wished)
    except CannotTrain as exc:
        raise ApiError(503, str(exc), code="cannot_train") from exc
    return {"type": method.type, method.type: {"hyperparameters": values}}


def _page(data: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    return {"object": "list", "data": data[:limit], "has_more": len(data) > limit}
