"""Attention within each of several sequences in one row.

On a GPU one variable-length flash kernel (`torch.nn.attention.varlen`) takes them all; elsewhere
each sequence has a causal call of its own. Neither computes, or masks, what one sequence could
see of another. Registered with transformers under the name `isolated`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PretrainedConfig
from transformers.masking_utils import AttentionMaskInterface

NAME = "isolated"


def isolated_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    cu_seqlens: Tensor | None = None,
    edges: tuple[int, ...] | None = None,
    max_seqlen: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention of `query` (1, heads, T, dim) on `key` and `value` (1, kv heads, T, dim),
    within the ranges of `edges`; (1, T, heads, dim)."""
    edges = edges or (0, query.shape[2])
    if cu_seqlens is not None and max_seqlen is not None and _has_kernel(query):
        return _varlen(query, key, value, cu_seqlens, max_seqlen, scaling), None
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
    sizes = [high - low for low, high in pairwise(edges)]
    # Split, not sliced: a slice's backward fills an array of the whole length, for each slice.
    pieces = zip(*(each.split(sizes, dim=2) for each in (query, key, value)), strict=True)
    parts = [
        scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling) for q, k, v in pieces
    ]
    joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
    return joined.transpose(1, 2), None


def attention_for(config: PretrainedConfig) -> str | None:
    """`isolated` where the model attends to everything before; None leaves the choice, and the
    masks between packed sequences, to transformers (sliding windows, capped scores)."""
    special = ("sliding_window", "attn_logit_softcapping", "attention_chunk_size")
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    sliding = getattr(config, "use_sliding_window", True)
    plain = not any(getattr(config, name, None) for name in special) or not sliding
    return NAME if plain and kinds == {"full_attention"} else None


def register() -> None:
    """Make the name known to transformers; no mask is built for it."""
    AttentionInterface.register(NAME, isolated_attention)
    AttentionMaskInterface.register(NAME, _no_mask)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


def _has_kernel(query: Tensor) -> bool:
    return query.is_cuda and query.dtype in (torch.bfloat16, torch.float16)


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, cu: Tensor, longest: int, scaling: float | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    flat = [each[0].transpose(0, 1) for each in (query, key, value)]
    found = varlen_attn(
        *flat, cu, cu, longest, longest, scale=scaling, window_size=(-1, 0), enable_gqa=True
    )
    assert isinstance(found, Tensor)
    return found[None]
