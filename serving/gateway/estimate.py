"""The most that a request can use, told from its body: what the ledger reserves for it.

Never too low, so that a budget cannot be overspent; too high by as much as bytes outnumber
tokens. `Proxy` asks the engine for the exact number of prompt tokens where that decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

TEMPLATE_TOKENS = 256
"""What a chat template may add of its own, beyond the bytes of the JSON around each message."""
UNKNOWN_CONTEXT = 131_072
COMPLETION_TOKENS = 16
"""`max_tokens` of /v1/completions where the request names none, as OpenAI has it."""
COUNTED = frozenset({"/v1/chat/completions", "/v1/completions"})
"""Paths whose body `/tokenize` understands, so that prompt tokens can be counted."""

_OUTPUT_LIMITS = {
    "/v1/chat/completions": ("max_completion_tokens", "max_tokens"),
    "/v1/completions": ("max_tokens",),
    "/v1/responses": ("max_output_tokens",),
    "/v1/messages": ("max_tokens",),
}


@dataclass(frozen=True)
class Bound:
    """Tokens that a request uses at most."""

    input: int = 0
    output: int = 0
    embedding: int = 0


def upper_bound(
    path: str, fields: Mapping[str, msgspec.Raw], size: int, context: int | None
) -> Bound:
    """Of a request to `path` with a JSON body of `size` bytes.

    A token is at least one byte of what it was made from. `context` is the model's longest
    prompt plus answer, in tokens.
    """
    context = context or UNKNOWN_CONTEXT
    if path in ("/v1/rerank", "/v1/score"):
        return Bound(embedding=_ranked(fields, size))
    if path == "/v1/embeddings":
        return Bound(embedding=size + TEMPLATE_TOKENS)
    if path not in _OUTPUT_LIMITS:
        return Bound()
    prompts = _prompts(fields) if path == "/v1/completions" else 1
    answers = prompts * max(_number(fields, "n", 1), _number(fields, "best_of", 1))
    limits = [_number(fields, name, 0) for name in _OUTPUT_LIMITS[path]]
    default = COMPLETION_TOKENS if path == "/v1/completions" else context
    longest = next((limit for limit in limits if limit > 0), default)
    return Bound(
        input=min(size + TEMPLATE_TOKENS, prompts * context),
        output=answers * min(longest, context),
    )


def _ranked(fields: Mapping[str, msgspec.Raw], size: int) -> int:
    """The query is read once with each document."""
    lists = [_value(fields, name) for name in ("documents", "data_2", "text_2", "queries")]
    pairs = max((len(value) for value in lists if isinstance(value, list)), default=1)
    queries = [fields[name] for name in ("query", "data_1", "text_1") if name in fields]
    return size + sum(len(bytes(query)) for query in queries) * pairs + 8 * pairs


def _prompts(fields: Mapping[str, msgspec.Raw]) -> int:
    prompt = _value(fields, "prompt")
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        return len(prompt)
    return 1


def _number(fields: Mapping[str, msgspec.Raw], name: str, default: int) -> int:
    value = _value(fields, name)
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _value(fields: Mapping[str, msgspec.Raw], name: str) -> Any:
    raw = fields.get(name)
    return None if raw is None else msgspec.json.decode(raw)
