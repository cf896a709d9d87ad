"""The tables of vector stores, their files and batches. Times as in `tables.py`.

What is found in them is the truth; the index follows. `work` says what is still to be done there.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    String,
    Table,
    Text,
)

from serving.store.tables import metadata

_Id = String(128)

vector_stores = Table(
    "vector_stores",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("tenant_id", _Id, ForeignKey("tenants.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("metadata", JSON(none_as_null=True)),
    Column("created_us", BigInteger, nullable=False),
    Column("last_active_us", BigInteger, nullable=False),
    Column("expires_days", BigInteger),
    Column("expires_us", BigInteger, index=True),
    Column("work", String(16), index=True),
    CheckConstraint("work IN ('expire', 'delete', 'expired')", name="work"),
    Index("ix_vector_stores_tenant_id_id", "tenant_id", "id"),
)
"""`work`: `expire` and `delete` are to be done in the index; `expired` is over."""

vector_store_files = Table(
    "vector_store_files",
    metadata,
    Column("store_id", _Id, ForeignKey("vector_stores.id"), primary_key=True),
    Column("file_id", _Id, primary_key=True),
    Column("batch_id", _Id, index=True),
    Column("filename", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("status", String(16), nullable=False),
    Column("attributes", JSON(none_as_null=True)),
    Column("chunking", JSON(none_as_null=True)),
    Column("chunk_tokens", BigInteger),
    Column("usage_bytes", BigInteger, nullable=False, server_default="0"),
    Column("error_code", String(32)),
    Column("error_message", Text),
    Column("work", String(16), index=True),
    Column("revision", BigInteger, nullable=False, server_default="0"),
    Column("attempts", BigInteger, nullable=False, server_default="0"),
    CheckConstraint(
        "status IN ('in_progress', 'completed', 'cancelled', 'failed', 'deleted')", name="status"
    ),
    CheckConstraint("work IN ('ingest', 'remove', 'describe')", name="work"),
    Index("ix_vector_store_files_store_id_created_us", "store_id", "created_us"),
)
"""`revision` counts what users change: what was done for an older one does not count.
`chunking`: as asked, null for `auto`; `chunk_tokens`: the size it came to."""

vector_store_batches = Table(
    "vector_store_batches",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("store_id", _Id, ForeignKey("vector_stores.id"), nullable=False, index=True),
    Column("created_us", BigInteger, nullable=False),
    Column("cancelled_us", BigInteger),
)
