"""Admin routes of limits, usage and the audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from serving.gateway.admin_auth import Authorize
from serving.gateway.admin_models import (
    AuditList,
    AuditView,
    LimitList,
    LimitsModel,
    ScopeView,
    SpentView,
    UsageList,
    UsageView,
    microseconds,
)
from serving.store import audit, money
from serving.store.accounts import Accounts
from serving.store.audit import Actor
from serving.store.limits import Limits
from serving.store.spent import Spent, spent_of
from serving.store.usage import By, UsageQuery, usage_of


def limits_router(accounts: Accounts, authorize: Authorize) -> APIRouter:
    """`/admin/limits`."""
    router = APIRouter(prefix="/admin/limits", tags=["limits"])
    limits = accounts.limits

    @router.get("", dependencies=[Depends(authorize)])
    def list_limits() -> LimitList:
        """Every scope that has limits, with what it has used."""
        known = limits.all()
        spent = spent_of(accounts.store, list(known))
        return LimitList(data=[_scope(scope, known[scope], spent[scope]) for scope in known])

    @router.get("/{scope:path}", dependencies=[Depends(authorize)])
    def show_limits(scope: str) -> ScopeView:
        """One scope, also one without limits."""
        limits.check(scope)
        spent = spent_of(accounts.store, [scope])
        return _scope(scope, limits.all().get(scope, Limits()), spent[scope])

    @router.put("/{scope:path}")
    def set_limits(
        scope: str, request: LimitsModel, actor: Actor = Depends(authorize)
    ) -> ScopeView:
        """Replace all limits of a scope; they count from the next request on."""
        limits.set(scope, request.limits(), actor)
        return _scope(scope, request.limits(), spent_of(accounts.store, [scope])[scope])

    return router


def usage_router(accounts: Accounts, authorize: Authorize) -> APIRouter:
    """`/admin/usage` and `/admin/audit`."""
    router = APIRouter(prefix="/admin", tags=["usage"], dependencies=[Depends(authorize)])

    @router.get("/usage")
    def usage(
        by: Annotated[list[By], Query(description="Group by these; repeatable.")] = [],  # noqa: B006
        since: Annotated[datetime | None, Query(description="From this moment on.")] = None,
        until: Annotated[datetime | None, Query(description="Before this moment.")] = None,
        tenant: str | None = None,
        key: Annotated[str | None, Query(description="A key's lineage.")] = None,
        model: str | None = None,
    ) -> UsageList:
        """What was used, in sums."""
        query = UsageQuery(
            by=list(dict.fromkeys(by)), since_us=microseconds(since), until_us=microseconds(until),
            tenant=tenant, key=key, model=model,
        )  # fmt: skip
        return UsageList(data=[UsageView.of(row) for row in usage_of(accounts.store, query)])

    @router.get("/audit")
    def audit_log(
        before: Annotated[int | None, Query(ge=1, le=2**62)] = None,
        tenant: str | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> AuditList:
        """Who did what to what."""
        found = audit.entries(accounts.store, before=before, tenant_id=tenant, limit=limit)
        return AuditList(data=[AuditView.of(entry) for entry in found])

    return router


def _scope(scope: str, limits: Limits, spent: Spent) -> ScopeView:
    return ScopeView(
        scope=scope,
        limits=LimitsModel.of(limits),
        day=_window(spent.day),
        month=_window(spent.month),
        parallel=spent.parallel,
    )


def _window(row: tuple[int, int, int, int]) -> SpentView:
    spent_nusd, held_nusd, spent_tokens, held_tokens = row
    return SpentView(
        spent_usd=money.dollars(spent_nusd),
        held_usd=money.dollars(held_nusd),
        spent_tokens=spent_tokens,
        held_tokens=held_tokens,
    )
