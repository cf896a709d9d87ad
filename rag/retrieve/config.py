"""How passages are found for a question."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from configs import StrictModel

__all__ = ["CrossEncoderConfig", "FusionConfig", "RetrieveConfig", "RewriteConfig"]


class FusionConfig(StrictModel):
    """How ranked lists become one."""

    method: Literal["rrf", "dbsf"] = "dbsf"
    dense_weight: float = Field(1.0, ge=0)
    text_weight: float = Field(1.0, ge=0)
    rrf_k: float = Field(60.0, gt=0)
    """The larger, the less the first ranks stand out."""

    @model_validator(mode="after")
    def _some_weight(self) -> FusionConfig:
        if self.dense_weight == self.text_weight == 0:
            raise ValueError("dense_weight and text_weight are both 0: nothing would be found")
        return self


class RewriteConfig(StrictModel):
    """What a language model makes of the question first. Each costs one generation."""

    conversation: bool = False
    """Make a follow-up question stand alone."""
    multi_query: int = Field(0, ge=0, le=8)
    """Further wordings to search with."""
    hyde: bool = False
    """Search by the embedding of an imagined answer too (Gao et al., 2022)."""
    max_tokens: int = Field(160, ge=8)
    """Of one generation."""


class CrossEncoderConfig(StrictModel):
    """A reranker behind an endpoint."""

    url: str = "http://127.0.0.1:8000/v1"
    model: str = "reranker"
    api_key_env: str = "CORRAL_API_KEY"
    """The environment variable that holds the key."""
    timeout_s: float = Field(30.0, gt=0)


class RetrieveConfig(StrictModel):
    """Fusion, reranking, packing."""

    mode: Literal["hybrid", "dense", "text"] = "hybrid"
    candidates: int = Field(100, ge=1)
    """From each ranked list."""
    fusion: FusionConfig = FusionConfig()
    rewrite: RewriteConfig = RewriteConfig()
    rerank: Literal["none", "maxsim", "cross_encoder"] = "none"
    """`maxsim`: late interaction with the embedder's token vectors. `cross_encoder`: the model
    below."""
    cross_encoder: CrossEncoderConfig = CrossEncoderConfig()
    rerank_candidates: int = Field(30, ge=1)
    rerank_weight: float = Field(0.5, ge=0, le=1)
    """Of the reranker's score against the fused one; 1 ranks by the reranker alone."""
    score_threshold: float | None = None
    """Leave out what scores below it, after reranking. Fused scores are relative to a question's
    own lists; with `mode: dense` and no reranker it is the cosine."""
    near_duplicate: float | None = Field(0.97, gt=0, le=1)
    """Cosine from which a passage is a repetition of a better one, and left out."""
    mmr_lambda: float | None = Field(None, ge=0, le=1)
    """Maximal marginal relevance (Carbonell and Goldstein, 1998): 1 is relevance alone, 0
    diversity alone."""
    limit: int = Field(10, ge=1)
    """Passages in an answer's context, at most."""
    expand_parents: bool = True
    """Answer with the parent of what was found, where it has one."""
    budget_tokens: int = Field(1_500, ge=1)
    """Of all passages in the prompt, counted by the embedder's tokenizer."""
    ordering: Literal["best_first", "ends_first"] = "ends_first"
    """`ends_first`: the best passages at the beginning and the end of the context, where models
    read best (Liu et al., 2023)."""
