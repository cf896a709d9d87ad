"""The arithmetic of one batch: decides in memory on rows that the transaction has locked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from serving.store import rates
from serving.store.ledger_rows import Holds
from serving.store.ledger_types import (
    Granted,
    LimitName,
    Payer,
    Rate,
    Refused,
    Reserve,
    Settle,
    Tokens,
)
from serving.store.limits import Limits
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
    """Locked rows by id, and what will be written besides them."""

    now_us: int
    limits: Mapping[str, Limits]
    prices: PriceBook
    windows: dict[str, dict[str, Any]] = field(default_factory=dict)
    meters: dict[str, dict[str, Any]] = field(default_factory=dict)
    reservations: list[dict[str, Any]] = field(default_factory=list)
    usage: list[dict[str, Any]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)

    def windows_of(self, reserve: Reserve) -> list[str]:
        """Windows that a reservation must fit into."""
        now = period(self.now_us)
        return [
            f"{scope}@{name}"
            for scope in reserve.payer.scopes
            if (limits := self.limits.get(scope)) is not None and limits.has_window
            for name in (now.day, now.month)
        ]

    def meters_of(self, reserve: Reserve) -> list[str]:
        """Scopes whose rates concern a reservation."""
        return [
            scope
            for scope in reserve.payer.scopes
            if (limits := self.limits.get(scope)) is not None and limits.has_meter
        ]

    def reserve(self, ask: Reserve, gateway_id: str) -> Granted | Refused:
        """Hold what `ask` needs in all windows and meters, or nothing."""
        if not any(scope in self.limits for scope in ask.payer.scopes):
            return Granted(None)
        tokens = ask.estimate.total
        nusd = self.prices.of(ask.payer.model, ask.payer.adapter).cost(ask.estimate)
        refused = self._refusal(ask.payer, tokens, nusd)
        if refused is not None:
            return refused
        holds = Holds(self.windows_of(ask), [])
        for id in holds.windows:
            self.windows[id]["held_nusd"] += nusd
            self.windows[id]["held_tokens"] += tokens
        for scope in self.meters_of(ask):
            holds.meters.append(self._take(scope, tokens))
        self.reservations.append(
            {
                "id": ask.id,
                "gateway_id": gateway_id,
                "state": "held",
                "at_us": self.now_us,
                "tenant_id": ask.payer.tenant_id,
                "key_id": ask.payer.lineage,
                "model": ask.payer.model,
                "request_id": _short(ask.request_id),
                "tokens": tokens,
                "nusd": nusd,
                "holds": msgspec.json.encode(holds).decode(),
            }
        )
        return Granted(ask.id, *self._rates(ask.payer))

    def granted(self, ask: Reserve) -> Granted:
        """The answer to what was granted before."""
        return Granted(ask.id, *self._rates(ask.payer))

    def settle(self, done: Settle, held: Held | None) -> None:
        """Book what was used, in the day and month in which the request began."""
        cost = self.prices.of(done.payer.model, done.payer.adapter).cost(done.used)
        flag, at_us = None, self.now_us
        if held is not None:
            at_us = held.at_us
            over = cost > held.nusd or done.used.total > held.tokens
            flag = "late" if held.state == "expired" else "over" if over else None
            self.release(held, done.used.total)
        elif done.reservation is not None:
            flag = "unknown"
        for id in spent_windows(done.payer, at_us):
            self.windows[id]["spent_nusd"] += cost
            self.windows[id]["spent_tokens"] += done.used.total
        self.usage.append(_entry(done, period(at_us), at_us, cost, flag))

    def release(self, held: Held, used_tokens: int = 0) -> None:
        """Give back what `held` holds; tokens that were not used come back to the rate."""
        self.gone.append(held.id)
        if held.state != "held":
            return
        for id in held.holds.windows:
            self.windows[id]["held_nusd"] -= held.nusd
            self.windows[id]["held_tokens"] -= held.tokens
        for scope, parallel, per_minute in held.holds.meters:
            meter = self.meters[scope]
            meter["parallel"] -= parallel
            if per_minute:
                unused = held.tokens - used_tokens
                meter["tokens_tat_ns"] -= rates.price_ns(unused, per_minute)

    def _take(self, scope: str, tokens: int) -> tuple[str, int, int]:
        limits, meter, now_ns = self.limits[scope], self.meters[scope], self.now_us * 1000
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

    def _refusal(self, payer: Payer, tokens: int, nusd: int) -> Refused | None:
        for scope in payer.scopes:
            limits = self.limits.get(scope)
            if limits is None:
                continue
            found = self._over_rate(scope, limits, tokens) or self._over_budget(
                scope, limits, tokens, nusd
            )
            if found is not None:
                limit, maximum, left, needed, wait_s = found
                return Refused(limit, scope, maximum, left, needed, wait_s, *self._rates(payer))
        return None

    def _over_rate(self, scope: str, limits: Limits, tokens: int) -> _Found | None:
        if not limits.has_meter:
            return None
        meter, now_ns = self.meters[scope], self.now_us * 1000
        most = limits.parallel_requests
        if most is not None and meter["parallel"] >= most:
            return "parallel_requests", most, 0, 1, 1.0 if most else None
        checks: tuple[tuple[LimitName, int | None, int, int], ...] = (
            ("requests_per_minute", limits.requests_per_minute, meter["requests_tat_ns"], 1),
            ("tokens_per_minute", limits.tokens_per_minute, meter["tokens_tat_ns"], tokens),
        )
        for name, per_minute, tat_ns, amount in checks:
            if per_minute is not None:
                wait = rates.wait_ns(tat_ns, now_ns, amount, per_minute)
                if wait != 0:
                    left = rates.remaining(tat_ns, now_ns, per_minute)
                    return name, per_minute, left, amount, None if wait is None else wait / 1e9
        return None

    def _over_budget(self, scope: str, limits: Limits, tokens: int, nusd: int) -> _Found | None:
        most = limits.nusd_per_request
        if most is not None and nusd > most:
            return "usd_per_request", most, most, nusd, None
        if not limits.has_window:
            return None
        now = period(self.now_us)
        day, month = self.windows[f"{scope}@{now.day}"], self.windows[f"{scope}@{now.month}"]
        day_s, month_s = now.day_ends_us - self.now_us, now.month_ends_us - self.now_us
        checks: tuple[tuple[LimitName, int | None, dict[str, Any], str, int, int], ...] = (
            ("usd_per_day", limits.nusd_per_day, day, "nusd", nusd, day_s),
            ("usd_per_month", limits.nusd_per_month, month, "nusd", nusd, month_s),
            ("tokens_per_day", limits.tokens_per_day, day, "tokens", tokens, day_s),
            ("tokens_per_month", limits.tokens_per_month, month, "tokens", tokens, month_s),
        )
        for name, maximum, row, unit, amount, ends_us in checks:
            if maximum is not None:
                left = maximum - row[f"spent_{unit}"] - row[f"held_{unit}"]
                if amount > left:
                    wait = None if amount > maximum else ends_us / 1e6
                    return name, maximum, max(0, left), amount, wait
        return None

    def _rates(self, payer: Payer) -> tuple[Rate | None, Rate | None]:
        """Of requests and of tokens, each the one of all scopes with the least left."""
        requests: list[Rate] = []
        tokens: list[Rate] = []
        for scope in payer.scopes:
            limits, meter = self.limits.get(scope), self.meters.get(scope)
            if limits is not None and meter is not None:
                pairs = (
                    (requests, limits.requests_per_minute, meter["requests_tat_ns"]),
                    (tokens, limits.tokens_per_minute, meter["tokens_tat_ns"]),
                )
                for found, per_minute, tat_ns in pairs:
                    if per_minute:
                        left = rates.remaining(tat_ns, self.now_us * 1000, per_minute)
                        reset_s = max(0, tat_ns - self.now_us * 1000) / 1e9
                        found.append(Rate(per_minute, left, reset_s))
        least = [
            min(found, key=lambda r: r.remaining, default=None) for found in (requests, tokens)
        ]
        return least[0], least[1]


_Found = tuple[LimitName, int, int, int, float | None]
"""Limit, maximum, remaining, needed, seconds to wait."""


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
