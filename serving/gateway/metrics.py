"""The gateway's Prometheus metrics, and merging expositions of many processes into one."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from serving.store.ledger_types import Payer, Tokens
from serving.store.ledger_writer import LedgerWriter

COST_BUCKETS_USD = tuple(base * 10.0**power for power in range(-6, 2) for base in (1, 2, 5))
LATENCY_BUCKETS_S = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0),
)


class GatewayMetrics:
    """Counters of one gateway process. Touched once a request, never per token."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.in_flight = Gauge(
            "corral_requests_in_flight", "Requests being answered", registry=self.registry
        )
        self.retries = Counter(
            "corral_replica_retries", "Requests sent again after a replica broke",
            registry=self.registry,
        )  # fmt: skip
        self._requests = Counter(
            "corral_requests", "Requests by route, model and status", ("route", "model", "status"),
            registry=self.registry,
        )  # fmt: skip
        self._duration = Histogram(
            "corral_request_duration_seconds", "Until the last byte", ("route", "model"),
            buckets=LATENCY_BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self._first_byte = Histogram(
            "corral_time_to_first_byte_seconds", "Until the first byte of the body", ("model",),
            buckets=LATENCY_BUCKETS_S, registry=self.registry,
        )  # fmt: skip

        who = ("tenant", "key", "model", "adapter")
        self._tokens = Counter(
            "corral_tokens", "Tokens booked, by kind: input, cached, output, embedding",
            (*who, "kind"), registry=self.registry,
        )  # fmt: skip
        self._cost = Counter(
            "corral_cost_usd", "Money booked, in US dollars", who, registry=self.registry
        )
        self._request_cost = Histogram(
            "corral_request_cost_usd", "Cost of a request, in US dollars", ("model", "adapter"),
            buckets=COST_BUCKETS_USD, registry=self.registry,
        )  # fmt: skip

    def watch(self, ledger: LedgerWriter) -> None:
        """Tell how far the ledger lags behind, and what it had to give up."""
        pending = Gauge(
            "corral_ledger_pending", "Bookings not written yet", registry=self.registry
        )
        pending.set_function(lambda: ledger.pending)
        lost = Gauge(
            "corral_ledger_lost", "Bookings given up; each is in the log", registry=self.registry
        )
        lost.set_function(lambda: ledger.lost)

    def booked(self, payer: Payer, used: Tokens, cost_usd: float) -> None:
        """Count what the ledger was told of one request. `cached` is part of `input`."""
        adapter = payer.adapter or ""
        who = (payer.tenant_id, payer.lineage, payer.model, adapter)
        for kind in ("input", "cached", "output", "embedding"):
            count = getattr(used, kind)
            if count:
                self._tokens.labels(*who, kind).inc(count)
        if cost_usd:
            self._cost.labels(*who).inc(cost_usd)
        self._request_cost.labels(payer.model, adapter).observe(cost_usd)

    def observe(self, route: str, model: str, status: int, duration_s: float) -> None:
        """Count a finished request. `model` is empty when it could not be resolved."""
        self._requests.labels(route, model, str(status)).inc()
        self._duration.labels(route, model).observe(duration_s)

    def first_byte(self, model: str, seconds: float) -> None:
        """Record the time to the first byte of an answer."""
        self._first_byte.labels(model).observe(seconds)

    def exposition(self) -> str:
        """Prometheus text format."""
        return generate_latest(self.registry).decode()


def merge(sources: Iterable[tuple[dict[str, str], str]]) -> str:
    """One exposition from many: every sample of a source gets that source's labels.

    Families of the same name are written together, as the format demands.
    """
    headers: dict[str, tuple[str, str]] = {}
    samples: dict[str, list[str]] = {}
    for labels, text in sources:
        for family in text_string_to_metric_families(text):
            headers.setdefault(family.name, (family.type, family.documentation))
            rows = samples.setdefault(family.name, [])
            for sample in family.samples:
                rows.append(_row(sample.name, {**sample.labels, **labels}, sample.value))
    lines: list[str] = []
    for name, (kind, documentation) in headers.items():
        exposed = f"{name}_total" if kind == "counter" else name
        kind = "untyped" if kind == "unknown" else kind  # the parser's word for it
        help_text = documentation.replace("\\", r"\\").replace("\n", r"\n")
        lines += [f"# HELP {exposed} {help_text}", f"# TYPE {exposed} {kind}", *samples[name]]
    return "\n".join(lines) + "\n"


def _row(name: str, labels: dict[str, str], value: float) -> str:
    pairs = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
    return f"{name}{{{pairs}}} {value!r}"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
