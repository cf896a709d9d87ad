"""The arithmetic of one batch: decides in memory on rows that the transaction has locked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from serving.store import rates
from serving.store.ledger_checks import Counters
from serving.store.ledger_rows import Holds
from serving.store.ledger_types import (
    Granted,
    Payer,
    Refused,
    Reserve,
    Settle,
    Tokens,
)
from serving.store.periods import Period, period
from serving.store.prices import PriceBook

_decode = msgspec.json.Decoder(Holds).decode


@dataclass
class Held:
    """A reservation as it is stored."""

    id: str
    state: str
    at_us: int
    tokens: int
    nusd: int
    holds: Holds

    @staticmethod
    def of(row: Any) -> Held:
        return Held(row.id, row.state, row.at_us, row.tokens, row.nusd, _decode(row.holds))


@dataclass
class Batch:
    """Locked rows, and what will be written besides them."""

    counters: Counters
    prices: PriceBook
    reservations: list[dict[str, Any]] = field(default_factory=list)
    usage: list[dict[str, Any]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)

    def windows_of(self, reserve: Reserve) -> list[str]:
        """Windows that a reservation must fit into."""
        now = period(self.counters.now_us)
        return [
            f"{scope}@{name}"
            for scope in reserve.payer.scopes
            if (limits := self.counters.limits.get(scope)) is not None and limits.has_window
            for name in (now.day, now.month)
        ]

    def meters_of(self, reserve: Reserve) -> list[str]:
        """Scopes whose rates concern a reservation."""
        return [
            scope
            for scope in reserve.payer.scopes
            if (limits := self.counters.limits.get(scope)) is not None and limits.has_meter
        ]

    def reserve(self, ask: Reserve, gateway_id: str) -> Granted | Refused:
        """Hold what `ask` needs in all windows and meters, or nothing."""
        if not any(scope in self.counters.limits for scope in ask.payer.scopes):
            return Granted(None)
        tokens = ask.estimate.total
        nusd = self.prices.of(ask.payer.model, ask.payer.adapter).cost(ask.estimate)
        refused = self.counters.refusal(ask.payer, tokens, nusd)
        if refused is not None:
            return refused
        holds = Holds(self.windows_of(ask), [])
        for id in holds.windows:
            self.counters.windows[id]["held_nusd"] += nusd
            self.counters.windows[id]["held_tokens"] += tokens
        for scope in self.meters_of(ask):
            holds.meters.append(self._take(scope, tokens))
        self.reservations.append(
            {
                "id": ask.id,
                "gateway_id": gateway_id,
                "state": "held",
                "at_us": self.counters.now_us,
                "tenant_id": ask.payer.tenant_id,
                "key_id": ask.payer.lineage,
                "model": ask.payer.model,
                "request_id": _short(ask.request_id),
                "tokens": tokens,
                "nusd": nusd,
                "holds": msgspec.json.encode(holds).decode(),
            }
        )
        return Granted(ask.id, *self.counters.rates(ask.payer))

    def granted(self, ask: Reserve) -> Granted:
        """The answer to what was granted before."""
        return Granted(ask.id, *self.counters.rates(ask.payer))

    def settle(self, done: Settle, held: Held | None) -> None:
        """Book what was used, in the day and month in which the request began."""
        cost = self.prices.of(done.payer.model, done.payer.adapter).cost(done.used)
        flag, at_us = None, self.counters.now_us
        if held is not None:
            at_us = held.at_us
            over = cost > held.nusd or done.used.total > held.tokens
            flag = "late" if held.state == "expired" else "over" if over else None
            self.release(held, done.used.total)
        elif done.reservation is not None:
            flag = "unknown"
        for id in spent_windows(done.payer, at_us):
            self.counters.windows[id]["spent_nusd"] += cost
            self.counters.windows[id]["spent_tokens"] += done.used.total
        self.usage.append(_entry(done, period(at_us), at_us, cost, flag))

    def release(self, held: Held, used_tokens: int = 0) -> None:
        """Give back what `held` holds; tokens that were not used come back to the rate."""
        self.gone.append(held.id)
        if held.state != "held":
            return
        for id in held.holds.windows:
            self.counters.windows[id]["held_nusd"] -= held.nusd
            self.counters.windows[id]["held_tokens"] -= held.tokens
        for scope, parallel, per_minute in held.holds.meters:
            meter = self.counters.meters[scope]
            meter["parallel"] -= parallel
            if per_minute:
                unused = held.tokens - used_tokens
                meter["tokens_tat_ns"] -= rates.price_ns(unused, per_minute)

    def _take(self, scope: str, tokens: int) -> tuple[str, int, int]:
        limits, meter, now_ns = (
            self.counters.limits[scope],
            self.counters.meters[scope],
            self.counters.now_us * 1000,
        )
        parallel = 0
        if limits.requests_per_minute is not None:
            begin = max(meter["requests_tat_ns"], now_ns)
            meter["requests_tat_ns"] = begin + rates.price_ns(1, limits.requests_per_minute)
        if limits.tokens_per_minute:
            begin = max(meter["tokens_tat_ns"], now_ns)
            meter["tokens_tat_ns"] = begin + rates.price_ns(tokens, limits.tokens_per_minute)
        if limits.parallel_requests is not None:
            parallel = 1
            meter["parallel"] += 1
        return scope, parallel, limits.tokens_per_minute or 0


def spent_windows(payer: Payer, at_us: int) -> list[str]:
    """Windows in which a request that began at `at_us` is booked, limited or not."""
    when = period(at_us)
    return [f"{scope}@{name}" for scope in payer.scopes for name in (when.day, when.month)]


def _entry(done: Settle, when: Period, at_us: int, cost: int, flag: str | None) -> dict[str, Any]:
    used: Tokens = done.used
    return {
        "id": done.reservation or done.id,
        "at_us": at_us,
        "day": when.day,
        "tenant_id": done.payer.tenant_id,
        "key_id": done.payer.lineage,
        "model": done.payer.model,
        "adapter": done.payer.adapter or "",
        "endpoint": done.endpoint,
        "status": done.status,
        "request_id": _short(done.request_id),
        "input_tokens": used.input,
        "cached_tokens": used.cached,
        "output_tokens": used.output,
        "embedding_tokens": used.embedding,
        "cost_nusd": cost,
        "gpu_us": used.gpu_us,
        "latency_us": done.latency_us,
        "ttft_us": done.ttft_us,
        "flag": flag,
    }


def _short(request_id: str | None) -> str | None:
    """Clients may choose request ids; the column takes 128 characters, and no NUL."""
    return None if request_id is None else request_id.replace("\0", "")[:128]
