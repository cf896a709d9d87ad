"""How answers are asked for and checked."""

from __future__ import annotations

from pydantic import Field

from configs import StrictModel

__all__ = ["CiteConfig"]


class CiteConfig(StrictModel):
    """Prompt and checks."""

    template: str = "answer"
    """A file's path, or the name of one in `rag/cite/templates/`."""
    not_found: str = "I could not find this in the documents."
    """The answer when they do not have it."""
    min_overlap: float = Field(0.5, ge=0, le=1)
    """Share of a claim's content words that the cited sentences must have."""
    min_entailment: float = Field(0.5, ge=0, le=1)
    """For an entailment model, where one is configured."""
    allowed_link_hosts: tuple[str, ...] = ()
    """Links in answers keep their address only to these hosts, or to a passage's own document."""
    max_tokens: int = Field(512, ge=1)
    """Of an answer."""
