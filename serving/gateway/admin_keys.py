"""Admin routes of keys and tenants. They ask the database, and so run on threads."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from serving.gateway.admin_auth import Authorize
from serving.gateway.admin_models import (
    KeyList,
    KeyRequest,
    KeyView,
    NewKeyView,
    RotateRequest,
    TenantChange,
    TenantList,
    TenantRequest,
    TenantView,
)
from serving.store.accounts import Accounts
from serving.store.audit import Actor


def keys_router(accounts: Accounts, authorize: Authorize) -> APIRouter:
    """`/admin/keys`."""
    router = APIRouter(prefix="/admin/keys", tags=["keys"])
    keys = accounts.keys

    @router.post("", status_code=201)
    def create_key(request: KeyRequest, actor: Actor = Depends(authorize)) -> NewKeyView:
        """Make a key. The answer is the only one that ever shows it."""
        return NewKeyView.of(keys.create(request.spec(), actor))

    @router.get("", dependencies=[Depends(authorize)])
    def list_keys(tenant: str | None = None) -> KeyList:
        """Keys of one tenant or of all, revoked and expired ones too."""
        return KeyList(data=[KeyView.of(key) for key in keys.all(tenant)])

    @router.get("/{id}", dependencies=[Depends(authorize)])
    def show_key(id: str) -> KeyView:
        """One key, by its id or its public prefix."""
        return KeyView.of(keys.get(id))

    @router.post("/{id}/revoke")
    def revoke_key(id: str, actor: Actor = Depends(authorize)) -> KeyView:
        """Let nobody in with it any more; every gateway hears of it at once."""
        return KeyView.of(keys.revoke(id, actor))

    @router.post("/{id}/rotate", status_code=201)
    def rotate_key(
        id: str, request: RotateRequest | None = None, actor: Actor = Depends(authorize)
    ) -> NewKeyView:
        """A new secret with the rights, limits and usage of the old, which lives on for a while."""
        overlap_s = (request or RotateRequest()).overlap_s
        return NewKeyView.of(keys.rotate(id, overlap_s, actor))

    return router


def tenants_router(accounts: Accounts, authorize: Authorize) -> APIRouter:
    """`/admin/tenants`."""
    router = APIRouter(prefix="/admin/tenants", tags=["tenants"])
    tenants = accounts.tenants

    @router.post("", status_code=201)
    def create_tenant(request: TenantRequest, actor: Actor = Depends(authorize)) -> TenantView:
        """Make a tenant."""
        made = tenants.create(request.id, actor, name=request.name, models=request.models)
        return TenantView.of(made)

    @router.get("", dependencies=[Depends(authorize)])
    def list_tenants() -> TenantList:
        """All tenants."""
        return TenantList(data=[TenantView.of(tenant) for tenant in tenants.all()])

    @router.get("/{id}", dependencies=[Depends(authorize)])
    def show_tenant(id: str) -> TenantView:
        """One tenant."""
        return TenantView.of(tenants.get(id))

    @router.patch("/{id}")
    def change_tenant(
        id: str, change: TenantChange, actor: Actor = Depends(authorize)
    ) -> TenantView:
        """Disable or enable it, or change what models it may use."""
        if "models" in change.model_fields_set:
            tenants.set_models(id, change.models, actor)
        if change.disabled is not None:
            tenants.set_disabled(id, change.disabled, actor)
        return TenantView.of(tenants.get(id))

    return router
