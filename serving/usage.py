"""What a request has used, read from the engine when the answer could not say it.

A whole answer carries its usage. One that was cut off, by a client that left, does not:
the door gives each request a `UsageMeter`, the engine tells it once where its counts are,
and whoever bills asks the door for them afterwards. Nothing is done per token.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class TokenUsage:
    """Tokens of a request, or of a part of one."""

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


class UsageMeter:
    """Counts of one HTTP request, which may be several sequences of the engine."""

    def __init__(self) -> None:
        self._parts: list[Callable[[], TokenUsage]] = []

    def track(self, part: Callable[[], TokenUsage]) -> None:
        """Called by the engine once a sequence; `part` is asked when somebody wants to know."""
        self._parts.append(part)

    def read(self) -> TokenUsage:
        """What the request has used until now."""
        return sum((part() for part in self._parts), TokenUsage())


METER: ContextVar[UsageMeter | None] = ContextVar("usage_meter", default=None)
"""The meter of the request that the running task answers."""
