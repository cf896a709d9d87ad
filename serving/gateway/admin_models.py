"""What the admin routes of keys, tenants, limits and usage take and give. Times are ISO 8601, UTC.

Money is in US dollars as a decimal string, exact to nine decimals.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer

from serving.store import money
from serving.store.audit import Entry
from serving.store.identity import Role
from serving.store.keys import Key, KeySpec, NewKey
from serving.store.limits import Limits
from serving.store.tenants import Tenant
from serving.store.usage import UsageRow

MAX_COUNT = 2**53
Patterns = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=256)
]
"""Glob patterns: `*` any text, `?` one character, `[ab]` one of these."""
Name = Annotated[str, Field(max_length=256, pattern=r"^[^\x00-\x1f]*$")]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]


def _exact(amount: Decimal) -> Decimal:
    money.nusd(amount)
    return amount


_plain = PlainSerializer(lambda amount: f"{amount:f}", return_type=str)
Usd = Annotated[Decimal, _plain]
Dollars = Annotated[Usd, Field(ge=0, le=10**9), AfterValidator(_exact)]


class _Model(BaseModel):
    model_config = ConfigDict(
        extra="forbid", use_attribute_docstrings=True, protected_namespaces=()
    )


class KeyRequest(_Model):
    """A key to be made."""

    tenant: str = "default"
    """Id of the tenant that it belongs to."""
    name: Name = ""
    """What it is for."""
    owner: Name = ""
    """Who answers for it."""
    role: Role = "member"
    """`admin` may use the admin routes; `service` is for programs, `member` for people."""
    expires: datetime | None = None
    """When it ends by itself; null is never. Without an offset it is UTC."""
    models: Patterns | None = None
    """Base models it may use; null allows what its tenant may use."""
    adapters: Patterns | None = None
    """Adapters it may use, as `base:name`."""
    stores: Patterns | None = None
    """Vector stores it may use."""
    endpoints: Patterns | None = None
    """Paths it may call, such as `/v1/chat/completions`."""

    def spec(self) -> KeySpec:
        """The same, as the store takes it."""
        values = self.model_dump(exclude={"tenant", "expires"})
        return KeySpec(tenant_id=self.tenant, expires_us=microseconds(self.expires), **values)


class KeyView(_Model):
    """A key without its secret."""

    id: str
    """Names the key in every other call."""
    lineage: str
    """Id of the first key of a rotation; limits (`key:LINEAGE`) and usage are kept under it."""
    prefix: str
    """The public part of the key, as in `sk-PREFIX-…`."""
    tenant: str
    name: str
    owner: str
    role: Role
    created: datetime
    expires: datetime | None
    revoked: datetime | None
    replaced_by: str | None
    """The key that took its place in a rotation."""
    models: list[str] | None
    adapters: list[str] | None
    stores: list[str] | None
    endpoints: list[str] | None

    @staticmethod
    def of(key: Key) -> KeyView:
        lists = {
            name: None if (found := getattr(key, name)) is None else list(found)
            for name in ("models", "adapters", "stores", "endpoints")
        }
        return KeyView(
            id=key.id, lineage=key.lineage, prefix=key.prefix, tenant=key.tenant_id, name=key.name,
            owner=key.owner, role=key.role, created=_time(key.created_us),
            expires=_maybe(key.expires_us), revoked=_maybe(key.revoked_us),
            replaced_by=key.replaced_by, **lists,
        )  # fmt: skip


class NewKeyView(_Model):
    """A key just made."""

    key: KeyView
    secret: str
    """The key itself. It is shown this once and cannot be had again."""

    @staticmethod
    def of(made: NewKey) -> NewKeyView:
        return NewKeyView(key=KeyView.of(made.key), secret=made.secret)


class KeyList(_Model):
    """Keys, oldest first."""

    object: Literal["list"] = "list"
    data: list[KeyView]


class RotateRequest(_Model):
    """How to rotate."""

    overlap_s: Annotated[float, Field(ge=0, le=30 * 86_400)] = 3600.0
    """Seconds for which the old secret still lets in."""


class TenantRequest(_Model):
    """A tenant to be made."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    """Names the tenant everywhere, for good."""
    name: Name = ""
    """What people call it; by default the id."""
    models: Patterns | None = None
    """Base models it may use; null allows all."""


class TenantChange(_Model):
    """What to change of a tenant. What is not given stays."""

    disabled: bool | None = None
    """True refuses all its keys from now on."""
    models: Patterns | None = None
    """Base models it may use from now on; null allows all."""


class TenantView(_Model):
    """A tenant."""

    id: str
    name: str
    created: datetime
    disabled: datetime | None
    """Since when its keys are refused."""
    models: list[str] | None

    @staticmethod
    def of(tenant: Tenant) -> TenantView:
        return TenantView(
            id=tenant.id, name=tenant.name, created=_time(tenant.created_us),
            disabled=_maybe(tenant.disabled_us),
            models=None if tenant.models is None else list(tenant.models),
        )  # fmt: skip


class TenantList(_Model):
    """Tenants by id."""

    object: Literal["list"] = "list"
    data: list[TenantView]


class LimitsModel(_Model):
    """Limits of one scope; null is no limit, 0 allows nothing."""

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    parallel_requests: Count | None = None
    tokens_per_day: Count | None = None
    tokens_per_month: Count | None = None
    usd_per_day: Dollars | None = None
    usd_per_month: Dollars | None = None
    usd_per_request: Dollars | None = None

    def limits(self) -> Limits:
        """The same, as the store takes it."""
        given = self.model_dump()
        money_ = {
            f"n{name}": None if (amount := given.pop(name)) is None else money.nusd(amount)
            for name in ("usd_per_day", "usd_per_month", "usd_per_request")
        }
        return Limits(**given, **money_)

    @staticmethod
    def of(limits: Limits) -> LimitsModel:
        def usd(amount: int | None) -> Decimal | None:
            return None if amount is None else money.dollars(amount)

        return LimitsModel(
            requests_per_minute=limits.requests_per_minute,
            tokens_per_minute=limits.tokens_per_minute,
            parallel_requests=limits.parallel_requests,
            tokens_per_day=limits.tokens_per_day,
            tokens_per_month=limits.tokens_per_month,
            usd_per_day=usd(limits.nusd_per_day),
            usd_per_month=usd(limits.nusd_per_month),
            usd_per_request=usd(limits.nusd_per_request),
        )


class SpentView(_Model):
    """What a scope has used in a window."""

    spent_usd: Usd
    held_usd: Usd
    """Reserved by requests under way."""
    spent_tokens: int
    held_tokens: int


class ScopeView(_Model):
    """A scope: its limits, and what it has used today and this month (UTC)."""

    scope: str
    """`key:LINEAGE`, `tenant:ID`, `model:NAME` or `tenant_model:ID/NAME`."""
    limits: LimitsModel
    day: SpentView
    month: SpentView
    parallel: int
    """Requests under way that were counted."""


class LimitList(_Model):
    """Every scope that has limits."""

    object: Literal["list"] = "list"
    data: list[ScopeView]


class UsageView(_Model):
    """Sums over the requests that share the values in `group`."""

    group: dict[str, str]
    requests: int
    input_tokens: int
    cached_tokens: int
    """Part of `input_tokens`."""
    output_tokens: int
    embedding_tokens: int
    cost_usd: Usd
    gpu_seconds: Usd

    @staticmethod
    def of(row: UsageRow) -> UsageView:
        return UsageView(
            group=row.group, requests=row.requests, input_tokens=row.input_tokens,
            cached_tokens=row.cached_tokens, output_tokens=row.output_tokens,
            embedding_tokens=row.embedding_tokens, cost_usd=money.dollars(row.cost_nusd),
            gpu_seconds=Decimal(row.gpu_us).scaleb(-6),
        )  # fmt: skip


class UsageList(_Model):
    """Usage in the order of its groups."""

    object: Literal["list"] = "list"
    data: list[UsageView]


class AuditView(_Model):
    """One line of the audit log."""

    id: int
    at: datetime
    actor: str
    action: str
    target: str
    tenant: str | None
    request_id: str | None
    detail: dict[str, Any] | None

    @staticmethod
    def of(entry: Entry) -> AuditView:
        return AuditView(
            id=entry.id, at=_time(entry.at_us), actor=entry.actor, action=entry.action,
            target=entry.target, tenant=entry.tenant_id, request_id=entry.request_id,
            detail=entry.detail,
        )  # fmt: skip


class AuditList(_Model):
    """The newest first; `before` with the last id gives the next page."""

    object: Literal["list"] = "list"
    data: list[AuditView]


def microseconds(when: datetime | None) -> int | None:
    if when is None:
        return None
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    return int(aware.timestamp() * 1_000_000)


def _time(at_us: int) -> datetime:
    return datetime.fromtimestamp(at_us / 1e6, UTC)


def _maybe(at_us: int | None) -> datetime | None:
    return None if at_us is None else _time(at_us)
