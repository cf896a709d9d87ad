"""Tokens of a request, as the engine counts them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TokenUsage:
    """Of a whole request, or of a part of one."""

    input_tokens: int = 0
    """Of the prompt, those found in the prefix cache included."""
    cached_tokens: int = 0
    """Of the prompt, those found in the prefix cache."""
    output_tokens: int = 0

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
        )
