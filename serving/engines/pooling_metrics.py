"""Prometheus metrics of one pooling engine, in a registry of its own."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from serving.engines.batching import Pass

__all__ = ["PoolingMetrics"]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class PoolingMetrics:
    """Counts requests on the event loop and passes on the worker thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "corral_pooling_requests",
            "Answered requests; status 499 is a client that went away.",
            ["route", "status"],
            registry=self._registry,
        )
        self._tokens = Counter(
            "corral_pooling_tokens", "Tokens of the inputs computed.", registry=self._registry
        )
        self._padded = Counter(
            "corral_pooling_padded_tokens",
            "Tokens computed, padding included.",
            registry=self._registry,
        )
        self._size = Histogram(
            "corral_pooling_batch_size",
            "Inputs in one forward pass.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
            registry=self._registry,
        )
        self._duration = Histogram(
            "corral_pooling_batch_seconds",
            "Duration of one forward pass.",
            buckets=SECONDS,
            registry=self._registry,
        )
        self._queue = Histogram(
            "corral_pooling_queue_seconds",
            "Time until the first pass that served a request.",
            buckets=SECONDS,
            registry=self._registry,
        )
        self._waiting = Gauge(
            "corral_pooling_waiting_items",
            "Inputs that no forward pass has taken yet.",
            registry=self._registry,
        )

    def answered(self, route: str, status: int) -> None:
        """Count one request."""
        self._requests.labels(route, str(status)).inc()

    def computed(self, done: Pass) -> None:
        """Count one forward pass."""
        self._tokens.inc(done.tokens)
        self._padded.inc(done.padded_tokens)
        self._size.observe(done.items)
        self._duration.observe(done.duration_s)
        for wait_s in done.waits_s:
            self._queue.observe(wait_s)

    def watch_queue(self, waiting: Callable[[], int]) -> None:
        """Ask `waiting` for the number of queued inputs at every scrape."""
        self._waiting.set_function(waiting)

    def text(self) -> str:
        """Prometheus exposition text."""
        return generate_latest(self._registry).decode()
