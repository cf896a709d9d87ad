"""The tables. Times are microseconds since 1970 (UTC), money is nano-US-dollars, both integers."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
_Id = String(128)
_Serial = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only in a column of exactly this type."""


def _number(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default="0")


def _maybe(name: str) -> Column[int | None]:
    return Column(name, BigInteger)


tenants = Table(
    "tenants",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    _maybe("disabled_us"),
    Column("models", JSON(none_as_null=True)),
    Column("cache_salt", String(64), nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("lineage", _Id, nullable=False, index=True),
    Column("prefix", String(16), nullable=False, unique=True),
    Column("hash", String(64), nullable=False),
    Column("tenant_id", _Id, ForeignKey("tenants.id"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("role", String(16), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    _maybe("expires_us"),
    _maybe("revoked_us"),
    Column("replaced_by", _Id),
    Column("models", JSON(none_as_null=True)),
    Column("adapters", JSON(none_as_null=True)),
    Column("stores", JSON(none_as_null=True)),
    Column("endpoints", JSON(none_as_null=True)),
    CheckConstraint("role IN ('admin', 'member', 'service')", name="role"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("at_us", BigInteger, nullable=False, index=True),
    Column("actor", Text, nullable=False),
    Column("action", String(64), nullable=False),
    Column("target", Text, nullable=False),
    Column("tenant_id", _Id),
    Column("request_id", String(128)),
    Column("detail", JSON(none_as_null=True)),
    sqlite_autoincrement=True,
)

limits = Table(
    "limits",
    metadata,
    Column("scope", String(384), primary_key=True),
    _maybe("requests_per_minute"),
    _maybe("tokens_per_minute"),
    _maybe("parallel_requests"),
    _maybe("tokens_per_day"),
    _maybe("tokens_per_month"),
    _maybe("nusd_per_day"),
    _maybe("nusd_per_month"),
    _maybe("nusd_per_request"),
)

windows = Table(
    "windows",
    metadata,
    Column("id", String(400), primary_key=True),  # <scope>@<YYYY-MM-DD or YYYY-MM>
    _number("spent_nusd"),
    _number("held_nusd"),
    _number("spent_tokens"),
    _number("held_tokens"),
)

meters = Table(
    "meters",
    metadata,
    Column("id", String(384), primary_key=True),  # a scope
    _number("requests_tat_ns"),
    _number("tokens_tat_ns"),
    _number("parallel"),
)

gateways = Table(
    "gateways",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("lease_until_us", BigInteger, nullable=False),
)

reservations = Table(
    "reservations",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("gateway_id", _Id, nullable=False),
    Column("state", String(8), nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("tenant_id", _Id, nullable=False),
    Column("key_id", _Id, nullable=False),
    Column("model", Text, nullable=False),
    Column("request_id", String(128)),
    _number("tokens"),
    _number("nusd"),
    Column("holds", Text, nullable=False),  # JSON of `ledger_rows.Holds`
    CheckConstraint("state IN ('held', 'expired')", name="state"),
    Index("ix_reservations_state_gateway_id", "state", "gateway_id"),
)

usage = Table(
    "usage",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("at_us", BigInteger, nullable=False, index=True),
    Column("day", String(10), nullable=False),
    Column("tenant_id", _Id, nullable=False),
    Column("key_id", _Id, nullable=False),
    Column("model", Text, nullable=False),
    Column("adapter", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("request_id", String(128)),
    _number("input_tokens"),
    _number("cached_tokens"),
    _number("output_tokens"),
    _number("embedding_tokens"),
    _number("cost_nusd"),
    _number("gpu_us"),
    _maybe("latency_us"),
    _maybe("ttft_us"),
    Column("flag", String(16)),
    CheckConstraint("status IN ('complete', 'interrupted', 'failed')", name="status"),
    CheckConstraint("flag IN ('over', 'late', 'unknown')", name="flag"),
    Index("ix_usage_tenant_id_at_us", "tenant_id", "at_us"),
    Index("ix_usage_key_id_at_us", "key_id", "at_us"),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", String(448), primary_key=True),  # <window>/<nusd or tokens>/<per cent>
    Column("at_us", BigInteger, nullable=False),
    Column("spent", BigInteger, nullable=False),
    Column("budget", BigInteger, nullable=False),
    _number("attempts"),
    _number("next_try_us"),
    _maybe("delivered_us"),
)

blobs = Table(
    "blobs",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("tenant_id", _Id, ForeignKey("tenants.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    _maybe("expires_us"),
    Index("ix_blobs_tenant_id_created_us", "tenant_id", "created_us"),
)
