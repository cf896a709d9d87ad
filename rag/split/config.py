"""How documents become chunks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from configs import StrictModel

__all__ = ["SplitConfig"]


class SplitConfig(StrictModel):
    """Sizes are in the embedder's own tokens."""

    by: Literal["heading", "recursive", "sentence", "token"] = "heading"
    """`recursive`: at paragraphs, lines, sentences, words, whichever is coarsest and fits.
    `heading`: the same, never over a heading. `sentence`: whole sentences. `token`: windows."""
    max_tokens: int | None = Field(None, ge=8)
    """Of a chunk, its heading path included. None: as many as the embedder takes, 512 at most."""
    overlap_tokens: int = Field(0, ge=0)
    """Tokens that a chunk repeats of the one before it, at most half of `max_tokens`."""
    heading_context: bool = True
    """Embed each chunk with the headings above it."""
    parent_tokens: int | None = Field(None, ge=16)
    """Also keep chunks of this size, which a search answers with in place of what it found."""

    @model_validator(mode="after")
    def _sizes(self) -> SplitConfig:
        if self.max_tokens is not None and self.overlap_tokens > self.max_tokens // 2:
            raise ValueError("overlap_tokens may be at most half of max_tokens")
        if self.parent_tokens is not None and self.parent_tokens <= (self.max_tokens or 0):
            raise ValueError("parent_tokens must be more than max_tokens")
        return self
