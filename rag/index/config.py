"""How chunks are indexed."""

from __future__ import annotations

from configs import StrictModel

__all__ = ["IndexConfig"]


class IndexConfig(StrictModel):
    """Where the vectors are and how they are searched."""
