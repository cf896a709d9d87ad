"""Alerts: budgets that near their end, raised once per window and threshold by whoever sees it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter
from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from serving.store import money
from serving.store.database import Store
from serving.store.ledger_checks import Counters
from serving.store.periods import period
from serving.store.tables import alerts

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Alert:
    """`spent` has reached `percent` of `budget`; nano-dollars or tokens, by `unit`."""

    scope: str
    window: str
    """`2026-11-23` or `2026-11`, UTC."""
    unit: Literal["usd", "tokens"]
    percent: int
    spent: int
    budget: int
    at_us: int

    @property
    def id(self) -> str:
        return f"{self.scope}@{self.window}/{self.unit}/{self.percent}"

    @staticmethod
    def of(row: Any) -> Alert:
        where, unit, percent = row.id.rsplit("/", 2)
        scope, _, window = where.rpartition("@")
        return Alert(scope, window, unit, int(percent), row.spent, row.budget, row.at_us)

    def __str__(self) -> str:
        show = money.text if self.unit == "usd" else str
        return (
            f"{self.scope} has spent {show(self.spent)} of {show(self.budget)} "
            f"{'' if self.unit == 'usd' else 'tokens '}in {self.window} ({self.percent}%)"
        )


class AlertMetrics:
    """`corral_budget_alerts_total`, for the registry of a gateway."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.raised = Counter(
            "corral_budget_alerts", "Budgets that reached a threshold",
            ("kind", "unit", "percent"), registry=registry,
        )  # fmt: skip


class AlertBook:
    """Notes alerts in the transaction that spends, and says them once it is committed."""

    def __init__(self, thresholds: Sequence[int], metrics: AlertMetrics | None = None) -> None:
        self._thresholds = thresholds
        self.metrics = metrics
        self._seen: set[tuple[str, int]] = set()
        self._due_now: list[Alert] = []
        self._new: list[Alert] = []

    def note(self, connection: Connection, store: Store, counters: Counters) -> None:
        """Write the alerts that the windows call for and that nobody has raised."""
        self._new = []
        due = [a for a in self._due(counters) if (a.id, a.budget) not in self._seen]
        self._due_now = due
        if not due:
            return
        found = select(alerts.c.id).where(alerts.c.id.in_([alert.id for alert in due]))
        raised = {row.id for row in connection.execute(found)}
        upsert: Any = (sqlite if store.is_sqlite else postgresql).insert(alerts)
        for alert in sorted(due, key=lambda alert: alert.id):
            if alert.id in raised:
                continue
            row = {"id": alert.id, "at_us": alert.at_us, "spent": alert.spent}
            values = upsert.values(**row, budget=alert.budget).on_conflict_do_nothing()
            if connection.execute(values.returning(alerts.c.id)).first() is not None:
                self._new.append(alert)

    def committed(self) -> None:
        """Say what was raised: a line in the log, a counter."""
        self._seen.update((alert.id, alert.budget) for alert in self._due_now)
        for alert in self._new:
            _log.warning("budget alert: %s", alert)
            if self.metrics is not None:
                kind = alert.scope.partition(":")[0]
                self.metrics.raised.labels(kind, alert.unit, str(alert.percent)).inc()
        self._due_now, self._new = [], []

    def _due(self, counters: Counters) -> list[Alert]:
        if not self._thresholds:
            return []
        now, due = period(counters.now_us), []
        for id, row in counters.windows.items():
            scope, _, window = id.rpartition("@")
            limits = counters.limits.get(scope)
            if limits is None or window not in (now.day, now.month):
                continue
            day = window == now.day
            usd = limits.nusd_per_day if day else limits.nusd_per_month
            tokens = limits.tokens_per_day if day else limits.tokens_per_month
            budgets: tuple[tuple[Literal["usd", "tokens"], int | None, int], ...] = (
                ("usd", usd, row["spent_nusd"]),
                ("tokens", tokens, row["spent_tokens"]),
            )
            for unit, budget, spent in budgets:
                for percent in self._thresholds if budget else ():
                    if budget and spent * 100 >= percent * budget:
                        due.append(
                            Alert(scope, window, unit, percent, spent, budget, counters.now_us)
                        )
        return due
