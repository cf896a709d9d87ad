"""How ingestion batches its work."""

from __future__ import annotations

from pydantic import Field

from configs import StrictModel

__all__ = ["IngestConfig"]


class IngestConfig(StrictModel):
    """Batches and the ledger."""

    batch_chunks: int = Field(256, ge=1)
    """Chunks embedded and stored together, across files."""
    remove_missing: bool = True
    """Files that an ingested folder no longer has disappear from the index."""
    retry_failed: bool = False
    """Whether files that failed are parsed again although they did not change."""
