"""What the gateway's own routes answer; for the OpenAPI document only, nothing is converted."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel


class Health(BaseModel):
    """The process is up."""

    status: Literal["ok"]


class ModelReadiness(BaseModel):
    """Whether one model generates, and what keeps it from that."""

    ready: bool
    replicas: int
    detail: str


class Ready(BaseModel):
    """Every model's readiness."""

    ready: bool
    models: dict[str, ModelReadiness]


class ModelCard(BaseModel):
    """A base model, or an adapter: then `parent` is its base."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: str | None


class ModelList(BaseModel):
    """What may be named in `model`."""

    object: Literal["list"]
    data: list[ModelCard]


class ModelDeleted(BaseModel):
    """It is gone."""

    id: str
    object: Literal["model"]
    deleted: bool


class FileView(BaseModel):
    """A file."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"]
    status_details: None


class FileList(BaseModel):
    """Files; `has_more` says whether there are others."""

    object: Literal["list"]
    data: list[FileView]
    has_more: bool
    first_id: str | None
    last_id: str | None


class FileDeleted(BaseModel):
    """It is gone."""

    id: str
    object: Literal["file"]
    deleted: bool


class AdapterList(BaseModel):
    """Every adapter version on disk."""

    object: Literal["list"]
    data: list[dict[str, Any]]


class AdapterVersions(BaseModel):
    """All versions of one adapter, and where they are loaded."""

    name: str
    versions: list[dict[str, Any]]
    loaded: list[dict[str, str]]


class AdapterLoaded(BaseModel):
    """The engine's name of the version, and the name that clients use for it."""

    loaded: str
    live: str


class AdaptersUnloaded(BaseModel):
    """The engine's names of what is no longer served."""

    unloaded: list[str]


class Status(BaseModel):
    """Every replica: running requests, loaded adapters, engine metrics."""

    models: list[str]
    replicas: list[dict[str, Any]]


def answers(model: type[BaseModel], *others: int) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses`: 200, and other statuses with the same body."""
    return {status: {"model": model} for status in (200, *others)}
