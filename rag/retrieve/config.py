"""How passages are found for a question."""

from __future__ import annotations

from configs import StrictModel

__all__ = ["RetrieveConfig"]


class RetrieveConfig(StrictModel):
    """Fusion, reranking, packing."""
