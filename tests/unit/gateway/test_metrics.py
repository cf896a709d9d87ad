"""Merged expositions parse, and keep what every process said."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from serving.gateway.metrics import GatewayMetrics, merge
from tests.unit.gateway.in_process import sample

AWKWARD = 'a "quoted"\\name\nof two lines'


def _process(scale: int) -> str:
    registry = CollectorRegistry()
    Counter("seen", "Things\nseen \\ counted", ["kind"], registry=registry).labels(AWKWARD).inc(
        scale
    )
    Gauge("level", "How full", registry=registry).set(-0.5 * scale)
    histogram = Histogram("took_seconds", "Time", buckets=(0.1, 1.0), registry=registry)
    for value in (0.05, 0.5, 5.0):
        histogram.observe(value * scale)
    Summary("size_bytes", "Size", registry=registry).observe(scale)
    return generate_latest(registry).decode()


def _types(text: str) -> list[str]:
    return [line.removeprefix("# TYPE ") for line in text.splitlines() if line.startswith("# TYPE")]


def test_each_source_keeps_its_samples_under_its_labels() -> None:
    text = merge([({"replica": "a"}, _process(1)), ({"replica": "b"}, _process(2))])
    for name, scale in (("a", 1), ("b", 2)):
        assert sample(text, "seen_total", replica=name, kind=AWKWARD) == scale
        assert sample(text, "level", replica=name) == -0.5 * scale
        assert sample(text, "took_seconds_count", replica=name) == 3
        assert sample(text, "took_seconds_bucket", replica=name, le="+Inf") == 3
        assert sample(text, "took_seconds_sum", replica=name) == pytest.approx(5.55 * scale)
        assert sample(text, "size_bytes_sum", replica=name) == scale


def test_families_are_declared_once_and_written_together() -> None:
    text = merge([({"replica": name}, _process(1)) for name in "abc"])
    types = _types(text)
    assert len(types) == len(set(types))
    assert {"seen_total counter", "level gauge", "took_seconds histogram"} <= set(types)
    families = [family.name for family in text_string_to_metric_families(text)]
    assert len(families) == len(set(families))


def test_merging_one_source_changes_labels_only() -> None:
    def content(text: str) -> dict[str, tuple[str, str, list[tuple[str, float]]]]:
        return {
            family.name: (
                family.type,
                family.documentation,
                [(found.name, found.value) for found in family.samples],
            )
            for family in text_string_to_metric_families(text)
        }

    text = _process(3)
    assert content(merge([({"replica": "a"}, text)])) == content(text)


def test_merging_what_was_merged_changes_nothing() -> None:
    once = merge([({"replica": "a"}, _process(3))])
    assert merge([({}, once)]) == once


def test_counters_end_in_total_and_what_has_no_type_is_untyped() -> None:
    text = "# TYPE bare counter\nbare 1\n# TYPE odd untyped\nodd 2\nalone 3\n"
    merged = merge([({"replica": "a"}, text)])
    assert _types(merged) == ["bare_total counter", "odd untyped", "alone untyped"]
    for name, value in (("bare_total", 1), ("odd", 2), ("alone", 3)):
        assert sample(merged, name, replica="a") == value


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "1e+300"])
def test_unusual_numbers_survive(value: str) -> None:
    merged = merge([({"replica": "a"}, f"# TYPE x gauge\nx {value}\n")])
    assert repr(sample(merged, "x")) == repr(float(value) + 0)


def test_nothing_to_merge_is_an_empty_exposition() -> None:
    assert list(text_string_to_metric_families(merge([]))) == []


def test_the_gateways_own_metrics() -> None:
    metrics = GatewayMetrics()
    metrics.observe("/v1/score", "m", 200, 0.3)
    metrics.observe("/v1/score", "m", 503, 400.0)
    metrics.first_byte("m", 0.02)
    metrics.in_flight.inc()
    metrics.retries.inc()
    text = metrics.exposition()
    assert sample(text, "corral_requests_total", route="/v1/score", model="m", status="200") == 1
    assert sample(text, "corral_request_duration_seconds_bucket", model="m", le="0.5") == 1
    assert sample(text, "corral_request_duration_seconds_count", model="m") == 2
    assert sample(text, "corral_time_to_first_byte_seconds_sum", model="m") == 0.02
    assert sample(text, "corral_requests_in_flight") == 1
    assert sample(text, "corral_replica_retries_total") == 1
