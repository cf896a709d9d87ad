"""What a stack is told of vector stores."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from configs import StrictModel
from rag.cite.config import CiteConfig
from rag.index.config import IndexConfig
from rag.load.config import LoadConfig
from rag.retrieve.config import RetrieveConfig
from rag.split.config import SplitConfig


class RetrievalConfig(StrictModel):
    """Vector stores: who embeds, where the passages are, how they are made and found."""

    enabled: bool = True
    """Offer vector stores. They need a model that embeds."""
    model: str | None = None
    """The served model that embeds; by default the first embedding model."""
    embed: Literal["replica", "fake"] = "replica"
    """Who embeds: the model's replicas, or hashed words in the gateway, to try things out."""
    rerank_model: str | None = None
    """A served model that orders what was found anew; by default nothing does."""
    index: IndexConfig = IndexConfig(path="index/stores")
    """One index for all tenants and stores. Embedded, it is one gateway process's; several
    (`gateway.replicas`) need a Qdrant server: `index.url`."""
    load: LoadConfig = LoadConfig()
    """Limits of one document."""
    split: SplitConfig = SplitConfig()
    """Passages of files whose `chunking_strategy` is `auto`."""
    search: RetrieveConfig = RetrieveConfig()
    """How passages are found where a request does not say."""
    cite: CiteConfig = CiteConfig()
    """How grounded answers are asked for, and their citations checked."""
    group_files: int = Field(64, ge=1)
    """Files that are indexed together."""
    max_attempts: int = Field(5, ge=1)
    """Failures of the stack's own after which a file is given up."""
    poll_s: float = Field(1.0, gt=0)
    """How often is looked for files of other gateways; a gateway's own are seen at once."""
    timeout_s: float = Field(60.0, gt=0)
    """How long one call of an embedding replica may take, its wait for a lease included."""
    max_store_files: int = Field(10_000, ge=1)
    """Files in one vector store."""

    @model_validator(mode="after")
    def _possible(self) -> RetrievalConfig:
        rewrite = self.search.rewrite
        if rewrite.conversation or rewrite.multi_query or rewrite.hyde:
            raise ValueError("search.rewrite is not done in the stack; leave it out")
        if self.search.rerank != "none":
            raise ValueError(
                "search.rerank: in the stack a served model reranks; set rerank_model to its name"
            )
        return self
