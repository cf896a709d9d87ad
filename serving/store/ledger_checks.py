"""Whether a request fits: rates, parallel requests and budgets, on rows that are locked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serving.store import rates
from serving.store.ledger_types import LimitName, Payer, Rate, Refused
from serving.store.limits import Limits
from serving.store.periods import period

_Found = tuple[LimitName, int, int, int, float | None]
"""Limit, maximum, remaining, needed, seconds to wait."""


@dataclass
class Counters:
    """Locked rows by id, the limits they are held against, and the moment."""

    now_us: int
    limits: Mapping[str, Limits]
    windows: dict[str, dict[str, Any]] = field(default_factory=dict)
    meters: dict[str, dict[str, Any]] = field(default_factory=dict)

    def refusal(self, payer: Payer, tokens: int, nusd: int) -> Refused | None:
        """The first limit of any scope that forbids so much, or None."""
        for scope in payer.scopes:
            limits = self.limits.get(scope)
            if limits is None:
                continue
            found = self._over_rate(scope, limits, tokens) or self._over_budget(
                scope, limits, tokens, nusd
            )
            if found is not None:
                limit, maximum, left, needed, wait_s = found
                return Refused(limit, scope, maximum, left, needed, wait_s, *self.rates(payer))
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

    def rates(self, payer: Payer) -> tuple[Rate | None, Rate | None]:
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
