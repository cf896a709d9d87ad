"""The tables of fine-tuning jobs and of the adapter registry. Times as in `tables.py`."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from serving.store.tables import metadata

_Id = String(128)
_Name = String(256)
_Serial = BigInteger().with_variant(Integer, "sqlite")

finetuning_jobs = Table(
    "finetuning_jobs",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("tenant_id", _Id, ForeignKey("tenants.id"), nullable=False),
    Column("key_id", _Id, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("status", String(16), nullable=False, index=True),
    Column("model", Text, nullable=False),
    Column("method", JSON, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("suffix", Text),
    Column("metadata", JSON(none_as_null=True)),
    Column("training_file", _Id, nullable=False),
    Column("validation_file", _Id),
    Column("error", JSON(none_as_null=True)),
    Column("finished_us", BigInteger),
    Column("estimated_us", BigInteger),
    Column("trained_tokens", BigInteger),
    Column("result_file", _Id),
    Column("fine_tuned_model", _Name),
    Column("adapter", _Name),
    Column("version", _Id),
    Column("attempt", BigInteger, nullable=False, server_default="0"),
    Column("crashes", BigInteger, nullable=False, server_default="0"),
    Column("lease_until_us", BigInteger),
    Column("events_offset", BigInteger, nullable=False, server_default="0"),
    CheckConstraint(
        "status IN ('validating_files', 'queued', 'running', 'paused', 'succeeded', 'failed', "
        "'cancelled')",
        name="status",
    ),
    Index("ix_finetuning_jobs_tenant_id_id", "tenant_id", "id"),
)
"""`lease_until_us`: until when a trainer answers for the job; null where none does. `attempt`
counts trainers: only the newest may write. `events_offset`: how far its events were read."""

finetuning_events = Table(
    "finetuning_events",
    metadata,
    Column("number", _Serial, primary_key=True, autoincrement=True),
    Column("id", _Id, nullable=False, unique=True),
    Column("job_id", _Id, ForeignKey("finetuning_jobs.id"), nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("level", String(8), nullable=False),
    Column("type", String(16), nullable=False),
    Column("message", Text, nullable=False),
    Column("data", JSON(none_as_null=True)),
    Index("ix_finetuning_events_job_id_number", "job_id", "number"),
    sqlite_autoincrement=True,
)

finetuning_checkpoints = Table(
    "finetuning_checkpoints",
    metadata,
    Column("number", _Serial, primary_key=True, autoincrement=True),
    Column("id", _Id, nullable=False, unique=True),
    Column("job_id", _Id, ForeignKey("finetuning_jobs.id"), nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("name", _Name, nullable=False),
    Column("adapter", _Name, nullable=False),
    Column("version", _Id, nullable=False),
    UniqueConstraint("job_id", "step"),
    sqlite_autoincrement=True,
)

registry_versions = Table(
    "registry_versions",
    metadata,
    Column("adapter", _Name, primary_key=True),
    Column("version", _Id, primary_key=True),
    Column("tenant_id", _Id, ForeignKey("tenants.id"), nullable=False),
    Column("base", Text, nullable=False),
    Column("name", _Name, nullable=False, unique=True),
    Column("job_id", _Id),
    Column("created_us", BigInteger, nullable=False),
    Column("deleted_us", BigInteger),
    Column("lineage", JSON, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("gate", JSON(none_as_null=True)),
)

registry_history = Table(
    "registry_history",
    metadata,
    Column("number", _Serial, primary_key=True, autoincrement=True),
    Column("at_us", BigInteger, nullable=False),
    Column("adapter", _Name, nullable=False, index=True),
    Column("alias", String(16), nullable=False),
    Column("version", _Id),
    Column("previous", _Id),
    Column("action", String(16), nullable=False),
    Column("actor", Text, nullable=False),
    CheckConstraint("alias IN ('champion', 'challenger')", name="alias"),
    CheckConstraint("action IN ('register', 'promote', 'rollback', 'delete')", name="action"),
    sqlite_autoincrement=True,
)

owners = Table(
    "owners",
    metadata,
    Column("task", _Id, primary_key=True),
    Column("holder", _Id, nullable=False),
    Column("until_us", BigInteger, nullable=False),
)
"""Which process does a task that one at a time may do, and until when it is believed to."""
