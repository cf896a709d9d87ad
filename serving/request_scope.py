"""What door and engine tell each other of one request, past the application between them.

The door opens a `RequestScope` for each request it lets in; the engine reads the tenant's
cache salt from it, and says once a sequence where its counts are. A whole answer carries
its usage; of one that was cut off, whoever bills asks the door. Nothing is done per token.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

from serving.usage import TokenUsage


@dataclass
class RequestScope:
    """One HTTP request, which may be several sequences of the engine."""

    cache_salt: str | None = None
    """Prefixes are shared in the cache only among requests with the same salt."""
    _parts: list[Callable[[], TokenUsage]] = field(default_factory=list)

    def track(self, part: Callable[[], TokenUsage]) -> None:
        """Called by the engine once a sequence; `part` is asked when somebody wants to know."""
        self._parts.append(part)

    def used(self) -> TokenUsage:
        """What the request has used until now."""
        return sum((part() for part in self._parts), TokenUsage())


SCOPE: ContextVar[RequestScope | None] = ContextVar("request_scope", default=None)
"""Of the request that the running task answers."""
