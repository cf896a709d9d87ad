"""What one request costs whom: reserved before an engine works, settled once it has ended."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from serving.gateway.errors import ApiError
from serving.gateway.estimate import Bound
from serving.store.ledger_types import Granted, Payer, Rate, Refused, Settle, Tokens
from serving.store.ledger_writer import LedgerWriter
from serving.usage import TokenUsage

Outcome = Literal["complete", "interrupted", "failed"]
EMBEDDING_PATHS = frozenset({"/v1/embeddings", "/v1/rerank", "/v1/score"})
UNBILLED_PATHS = frozenset({"/tokenize", "/detokenize", "/v1/messages/count_tokens"})
"""Nothing is generated or embedded: they count against requests a minute, and cost nothing."""


@dataclass
class Charge:
    """One request's place in the ledger. It is closed once; later calls change nothing."""

    ledger: LedgerWriter | None
    """None where nobody is charged."""
    payer: Payer
    path: str
    request_id: str
    on_booked: Callable[[Payer, Tokens], None] = lambda payer, used: None
    """Told what the ledger is told."""
    gpus: float = 0.0
    """Of the replica that answers, for prices by the second."""
    reservation: str | None = None
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    """`x-ratelimit-*` of the answer."""
    started: float = field(default_factory=time.perf_counter)
    first_byte: float | None = None
    """When the answer began."""

    @property
    def open(self) -> bool:
        """Whether the ledger still waits to hear of the request."""
        return self.ledger is not None

    def settle(self, usage: TokenUsage, outcome: Outcome) -> None:
        """Book what was used."""
        ledger, self.ledger = self.ledger, None
        if ledger is None:
            return
        seconds = time.perf_counter() - self.started
        first = self.first_byte
        used = tokens(self.path, usage, seconds * self.gpus)
        self.on_booked(self.payer, used)
        ledger.settle(
            Settle(
                self.payer,
                used,
                self.path,
                outcome,
                self.request_id,
                latency_us=int(1e6 * seconds),
                ttft_us=None if first is None else int(1e6 * (first - self.started)),
                reservation=self.reservation,
            )
        )

    def release(self) -> None:
        """Nothing was used: give back what was reserved."""
        ledger, self.ledger = self.ledger, None
        if ledger is not None:
            ledger.release(self.reservation)


def free_charge(path: str, request_id: str) -> Charge:
    """Of a request that nobody pays for, or that nobody pays for yet."""
    return Charge(None, Payer("", "", ""), path, request_id)


def tokens(path: str, usage: TokenUsage, gpu_s: float) -> Tokens:
    """Usage in the ledger's terms: what was embedded or ranked has a price of its own."""
    gpu_us = int(1e6 * gpu_s)
    if path in EMBEDDING_PATHS:
        return Tokens(embedding=usage.input_tokens, gpu_us=gpu_us)
    return Tokens(
        input=usage.input_tokens,
        cached=usage.cached_tokens,
        output=usage.output_tokens,
        gpu_us=gpu_us,
    )


def estimate(bound: Bound) -> Tokens:
    """The bound in the ledger's terms."""
    return Tokens(input=bound.input, output=bound.output, embedding=bound.embedding)


def refusal(refused: Refused) -> ApiError:
    """429 for a rate that may be asked again later, 402 for a budget that is spent."""
    headers = rate_headers(refused)
    if refused.retry_after_s is not None:
        headers.append((b"retry-after", str(math.ceil(refused.retry_after_s)).encode()))
    if refused.is_budget:
        return ApiError(402, refused.message, code="insufficient_quota", headers=headers)
    return ApiError(429, refused.message, code="rate_limit_exceeded", headers=headers)


def rate_headers(outcome: Granted | Refused) -> list[tuple[bytes, bytes]]:
    """`x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, as OpenAI names and writes them."""
    headers: list[tuple[bytes, bytes]] = []
    for name, rate in ((b"requests", outcome.requests), (b"tokens", outcome.tokens)):
        if rate is not None:
            headers += _rate_headers(name, rate)
    return headers


def _rate_headers(name: bytes, rate: Rate) -> list[tuple[bytes, bytes]]:
    values = (str(rate.maximum), str(max(0, rate.remaining)), f"{rate.reset_s:.3f}s")
    kinds = (b"limit", b"remaining", b"reset")
    return [
        (b"x-ratelimit-%b-%b" % (kind, name), value.encode())
        for kind, value in zip(kinds, values, strict=True)
    ]
