"""What goes into the ledger and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from serving.store import money
from serving.store.secret import new_id

LimitName = Literal[
    "requests_per_minute",
    "tokens_per_minute",
    "parallel_requests",
    "tokens_per_day",
    "tokens_per_month",
    "usd_per_day",
    "usd_per_month",
    "usd_per_request",
]
Status = Literal["complete", "interrupted", "failed"]
BUDGETS = frozenset(
    {"tokens_per_day", "tokens_per_month", "usd_per_day", "usd_per_month", "usd_per_request"}
)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of one request, all >= 0; `cached` are part of `input`. `gpu_us`: GPU time in µs."""

    input: int = 0
    cached: int = 0
    output: int = 0
    embedding: int = 0
    gpu_us: int = 0

    @property
    def total(self) -> int:
        return self.input + self.output + self.embedding


@dataclass(frozen=True, slots=True)
class Payer:
    """Whose limits count, and where usage is booked."""

    tenant_id: str
    lineage: str
    """Of the key, `Identity.lineage`."""
    model: str
    """The base model's name."""
    adapter: str | None = None

    @property
    def scopes(self) -> tuple[str, str, str, str]:
        """What may have limits: key, tenant, model, and the model for this tenant."""
        tenant, model = self.tenant_id, self.model
        key = f"key:{self.lineage}"
        return key, f"tenant:{tenant}", f"model:{model}", f"tenant_model:{tenant}/{model}"


@dataclass(frozen=True, slots=True)
class Reserve:
    """Asks for leave before the work. `estimate` is the most that the request can use."""

    payer: Payer
    estimate: Tokens
    request_id: str | None = None
    id: str = field(default_factory=lambda: new_id("rsv"))


@dataclass(frozen=True, slots=True)
class Settle:
    """Tells what a request did use. With `reservation`, gives back what was held for it."""

    payer: Payer
    used: Tokens
    endpoint: str
    status: Status = "complete"
    request_id: str | None = None
    latency_us: int | None = None
    ttft_us: int | None = None
    reservation: str | None = None
    id: str = field(default_factory=lambda: new_id("use"))


@dataclass(frozen=True, slots=True)
class Release:
    """Gives back what was held for a request that never reached an engine; no usage is booked."""

    reservation: str


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate as `x-ratelimit-*` headers tell it, after this request."""

    maximum: int
    remaining: int
    reset_s: float
    """Until `remaining` is `maximum` again when nothing more is asked."""


@dataclass(frozen=True, slots=True)
class Granted:
    """Go on. `reservation` is None when no limit is concerned: then settle without one."""

    reservation: str | None
    requests: Rate | None = None
    tokens: Rate | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A limit forbids it; nothing is held. Amounts are tokens, requests or nano-dollars."""

    limit: LimitName
    scope: str
    maximum: int
    remaining: int
    needed: int
    retry_after_s: float | None
    """When it may be granted at the earliest; None when it never will."""
    requests: Rate | None = None
    tokens: Rate | None = None

    @property
    def is_budget(self) -> bool:
        """A budget is spent (402), rather than a rate exceeded (429)."""
        return self.limit in BUDGETS

    @property
    def message(self) -> str:
        """For the client: which limit, of what, what is left and what was asked."""
        kind, _, name = self.scope.partition(":")
        whose = {"key": "this API key", "tenant_model": f"model {name.partition('/')[2]}"}.get(
            kind, f"{kind} {name}"
        )
        show = money.text if self.limit.startswith("usd") else str
        words = self.limit.replace("_", " ")
        return (
            f"{words} of {whose}: the limit is {show(self.maximum)}, {show(self.remaining)} is "
            f"left, this request may need {show(self.needed)}"
        )


Outcome = Granted | Refused | None
"""None is the outcome of Settle and Release."""
