"""Vector stores, their files and batches."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ID = sa.String(length=128)
_JSON = sa.JSON(none_as_null=True)


def upgrade() -> None:
    """Apply."""
    _stores()
    _files()
    op.create_table(
        "vector_store_batches",
        sa.Column("id", _ID, nullable=False),
        sa.Column("store_id", _ID, nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("cancelled_us", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["store_id"], ["vector_stores.id"], name=op.f("fk_vector_store_batches_store_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vector_store_batches")),
    )
    op.create_index(op.f("ix_vector_store_batches_store_id"), "vector_store_batches", ["store_id"])


def _stores() -> None:
    op.create_table(
        "vector_stores",
        sa.Column("id", _ID, nullable=False),
        sa.Column("tenant_id", _ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("metadata", _JSON, nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("last_active_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_days", sa.BigInteger(), nullable=True),
        sa.Column("expires_us", sa.BigInteger(), nullable=True),
        sa.Column("work", sa.String(length=16), nullable=True),
        sa.CheckConstraint(
            "work IN ('expire', 'delete', 'expired')", name=op.f("ck_vector_stores_work")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_vector_stores_tenant_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vector_stores")),
    )
    op.create_index("ix_vector_stores_tenant_id_id", "vector_stores", ["tenant_id", "id"])
    for column in ("expires_us", "work"):
        op.create_index(op.f(f"ix_vector_stores_{column}"), "vector_stores", [column])


def _files() -> None:
    op.create_table(
        "vector_store_files",
        sa.Column("store_id", _ID, nullable=False),
        sa.Column("file_id", _ID, nullable=False),
        sa.Column("batch_id", _ID, nullable=True),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("attributes", _JSON, nullable=True),
        sa.Column("chunking", _JSON, nullable=True),
        sa.Column("chunk_tokens", sa.BigInteger(), nullable=True),
        sa.Column("usage_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("error_code", sa.String(length=32), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("work", sa.String(length=16), nullable=True),
        sa.Column("revision", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint(
            "status IN ('in_progress', 'completed', 'cancelled', 'failed', 'deleted')",
            name=op.f("ck_vector_store_files_status"),
        ),
        sa.CheckConstraint(
            "work IN ('ingest', 'remove', 'describe')", name=op.f("ck_vector_store_files_work")
        ),
        sa.ForeignKeyConstraint(
            ["store_id"], ["vector_stores.id"], name=op.f("fk_vector_store_files_store_id")
        ),
        sa.PrimaryKeyConstraint("store_id", "file_id", name=op.f("pk_vector_store_files")),
    )
    for column in ("batch_id", "work"):
        op.create_index(op.f(f"ix_vector_store_files_{column}"), "vector_store_files", [column])
    op.create_index(
        "ix_vector_store_files_store_id_created_us",
        "vector_store_files",
        ["store_id", "created_us"],
    )
