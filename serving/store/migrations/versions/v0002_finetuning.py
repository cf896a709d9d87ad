"""Fine-tuning jobs, the adapter registry, files that expire."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ID = sa.String(length=128)
_NAME = sa.String(length=256)
_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Apply."""
    op.add_column("blobs", sa.Column("expires_us", sa.BigInteger(), nullable=True))
    _jobs()
    _events()
    _checkpoints()
    _registry()
    op.create_table(
        "owners",
        sa.Column("task", _ID, nullable=False),
        sa.Column("holder", _ID, nullable=False),
        sa.Column("until_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("task", name=op.f("pk_owners")),
    )


def _jobs() -> None:
    op.create_table(
        "finetuning_jobs",
        sa.Column("id", _ID, nullable=False),
        sa.Column("tenant_id", _ID, nullable=False),
        sa.Column("key_id", _ID, nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("method", sa.JSON(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("suffix", sa.Text(), nullable=True),
        sa.Column("metadata", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("training_file", _ID, nullable=False),
        sa.Column("validation_file", _ID, nullable=True),
        sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("finished_us", sa.BigInteger(), nullable=True),
        sa.Column("estimated_us", sa.BigInteger(), nullable=True),
        sa.Column("trained_tokens", sa.BigInteger(), nullable=True),
        sa.Column("result_file", _ID, nullable=True),
        sa.Column("fine_tuned_model", _NAME, nullable=True),
        sa.Column("adapter", _NAME, nullable=True),
        sa.Column("version", _ID, nullable=True),
        sa.Column("attempt", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("crashes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("lease_until_us", sa.BigInteger(), nullable=True),
        sa.Column("events_offset", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint(
            "status IN ('validating_files', 'queued', 'running', 'paused', 'succeeded', "
            "'failed', 'cancelled')",
            name=op.f("ck_finetuning_jobs_status"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_finetuning_jobs_tenant_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_finetuning_jobs")),
    )
    op.create_index(op.f("ix_finetuning_jobs_status"), "finetuning_jobs", ["status"])
    op.create_index("ix_finetuning_jobs_tenant_id_id", "finetuning_jobs", ["tenant_id", "id"])


def _events() -> None:
    op.create_table(
        "finetuning_events",
        sa.Column("number", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("id", _ID, nullable=False),
        sa.Column("job_id", _ID, nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("level", sa.String(length=8), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("data", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["finetuning_jobs.id"], name=op.f("fk_finetuning_events_job_id")
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_finetuning_events")),
        sa.UniqueConstraint("id", name=op.f("uq_finetuning_events_id")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_finetuning_events_job_id_number", "finetuning_events", ["job_id", "number"])


def _checkpoints() -> None:
    op.create_table(
        "finetuning_checkpoints",
        sa.Column("number", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("id", _ID, nullable=False),
        sa.Column("job_id", _ID, nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("adapter", _NAME, nullable=False),
        sa.Column("version", _ID, nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["finetuning_jobs.id"], name=op.f("fk_finetuning_checkpoints_job_id")
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_finetuning_checkpoints")),
        sa.UniqueConstraint("id", name=op.f("uq_finetuning_checkpoints_id")),
        sa.UniqueConstraint("job_id", "step", name=op.f("uq_finetuning_checkpoints_job_id_step")),
        sqlite_autoincrement=True,
    )


def _registry() -> None:
    op.create_table(
        "registry_versions",
        sa.Column("adapter", _NAME, nullable=False),
        sa.Column("version", _ID, nullable=False),
        sa.Column("tenant_id", _ID, nullable=False),
        sa.Column("base", sa.Text(), nullable=False),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("job_id", _ID, nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("deleted_us", sa.BigInteger(), nullable=True),
        sa.Column("lineage", sa.JSON(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("gate", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_registry_versions_tenant_id")
        ),
        sa.PrimaryKeyConstraint("adapter", "version", name=op.f("pk_registry_versions")),
        sa.UniqueConstraint("name", name=op.f("uq_registry_versions_name")),
    )
    op.create_table(
        "registry_history",
        sa.Column("number", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("adapter", _NAME, nullable=False),
        sa.Column("alias", sa.String(length=16), nullable=False),
        sa.Column("version", _ID, nullable=True),
        sa.Column("previous", _ID, nullable=True),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "alias IN ('champion', 'challenger')", name=op.f("ck_registry_history_alias")
        ),
        sa.CheckConstraint(
            "action IN ('register', 'promote', 'rollback', 'delete')",
            name=op.f("ck_registry_history_action"),
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_registry_history")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_registry_history_adapter"), "registry_history", ["adapter"])
