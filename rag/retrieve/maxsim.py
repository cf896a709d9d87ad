"""Late interaction: each of the question's tokens finds its best match in the passage, and the
passage's score is their mean (MaxSim; Khattab and Zaharia, 2020). Needs no model but the embedder,
which was not trained for it: `benchmarks/rag` says what that is worth."""

from __future__ import annotations

from collections.abc import Sequence

from rag.protocols import TokenVectors

__all__ = ["MaxSimReranker"]


class MaxSimReranker:
    """`Reranker` over an embedder's token vectors."""

    def __init__(self, embedder: TokenVectors) -> None:
        self._embedder = embedder

    def score(self, query: str, passages: Sequence[str]) -> list[float]:
        """Mean over the query's tokens of the greatest cosine with a token of the passage."""
        if not passages:
            return []
        [question] = self._embedder.encode_tokens([query])
        return [
            float((question @ tokens.T).max(axis=1).mean()) if len(tokens) and len(question) else 0
            for tokens in self._embedder.encode_tokens(passages)
        ]
