"""What was found as a context for a language model: parents in place of children, as many passages
as the budget allows, in the order that is read best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rag.protocols import Tokens, VectorIndex
from rag.retrieve.config import RetrieveConfig
from rag.types import Chunk, Hit, Scope

__all__ = ["Passage", "ends_first", "pack", "with_parents"]


@dataclass(frozen=True, slots=True)
class Passage:
    """A numbered piece of context. `number` is what an answer cites."""

    number: int
    chunk: Chunk
    score: float


def with_parents(hits: Sequence[Hit], scope: Scope, index: VectorIndex) -> list[Hit]:
    """Each hit's parent in its place, once, with the score of its best child."""
    wanted = list(dict.fromkeys(h.chunk.parent_id for h in hits if h.chunk.parent_id))
    parents = {chunk.id: chunk for chunk in index.get(scope, wanted)} if wanted else {}
    expanded: dict[str, Hit] = {}
    for hit in hits:
        parent = parents.get(hit.chunk.parent_id or "")
        better = hit if parent is None else replace(hit, chunk=parent)
        expanded.setdefault(better.chunk.id, better)
    return list(expanded.values())


def pack(hits: Sequence[Hit], config: RetrieveConfig, tokens: Tokens) -> list[Passage]:
    """The best hits that fit into `budget_tokens` together, at most `limit`; one that does not fit
    is left out for smaller ones after it. Numbered from 1 in the order of the prompt."""
    counts = tokens.count_tokens([hit.chunk.embedded for hit in hits])
    left = config.budget_tokens
    kept: list[Hit] = []
    for hit, count in zip(hits, counts, strict=True):
        if count <= left and len(kept) < config.limit:
            kept.append(hit)
            left -= count
    ordered = ends_first(kept) if config.ordering == "ends_first" else kept
    return [Passage(number, hit.chunk, hit.score) for number, hit in enumerate(ordered, 1)]


def ends_first(hits: Sequence[Hit]) -> list[Hit]:
    """The best first, the second best last, and so on inwards."""
    return [*hits[::2], *reversed(hits[1::2])]
