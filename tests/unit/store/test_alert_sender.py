"""Alerts arrive at a webhook: signed, tried again, once among several gateways."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from serving.store.alert_sender import AlertSender
from serving.store.alerts import AlertMetrics
from serving.store.config import AlertConfig
from serving.store.database import Store
from serving.store.errors import Invalid
from serving.store.ledger import Ledger
from serving.store.ledger_types import Tokens
from serving.store.limits import LimitBook
from tests.unit.store.test_ledger import PRICES, Clocked


class Hook(HTTPServer):
    """A receiver that answers with the given statuses, then 204."""

    def __init__(self, *statuses: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses = list(statuses)
        self.got: list[tuple[bytes, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


class _Handler(BaseHTTPRequestHandler):
    server: Any

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((body, self.headers["x-corral-signature"]))
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hook() -> Iterator[Hook]:
    with Hook(500) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def spend(store: Store) -> tuple[Clocked, CollectorRegistry]:
    site, registry = Clocked(store), CollectorRegistry()
    site.ledger = Ledger(store, PRICES, LimitBook(store, 60), "g", (50,), AlertMetrics(registry))
    site.limit("tenant:default", nusd_per_day=10_000)
    site.settle(site.hold(Tokens(input=6)), Tokens(input=6))
    return site, registry


def test_an_alert_is_delivered_signed_after_a_failure(
    store: Store, hook: Hook, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site, registry = spend(store)
    labels = {"kind": "tenant", "unit": "usd", "percent": "50"}
    assert registry.get_sample_value("corral_budget_alerts_total", labels) == 1
    assert "tenant:default has spent $0.000006 of $0.00001" in caplog.text
    (tmp_path / "secret").write_text("0123456789abcdef\n")
    config = AlertConfig(webhook=hook.url, secret_file=str(tmp_path / "secret"))
    senders = [AlertSender(store, config) for _ in range(2)]
    assert senders[0].deliver() == 0, "the receiver answers 500"
    assert senders[1].deliver() == 0, "too early to try again"
    site.pass_(60)
    assert [sender.deliver() for sender in senders] == [1, 0]
    site.pass_(3600)
    assert [sender.deliver() for sender in senders] == [0, 0]
    (first, _), (body, signature) = hook.got
    assert first == body
    expected = hmac.new(b"0123456789abcdef", body, hashlib.sha256).hexdigest()
    assert signature == f"sha256={expected}"
    alert = json.loads(body)
    assert (alert["scope"], alert["percent"], alert["spent"]) == ("tenant:default", 50, 6000)


def test_a_receiver_that_never_answers_is_given_up(store: Store) -> None:
    site, _ = spend(store)
    sender = AlertSender(store, AlertConfig(webhook="http://127.0.0.1:9/", attempts=2))
    for _ in range(4):
        assert sender.deliver() == 0
        site.pass_(3600)
    assert sender._claim() == []


def test_its_thread_delivers_and_ends(store: Store, hook: Hook) -> None:
    hook.statuses.clear()
    spend(store)
    sender = AlertSender(store, AlertConfig(webhook=hook.url), poll_s=0.01)
    sender.start()
    waited = threading.Event()
    for _ in range(1000):
        if hook.got or waited.wait(0.01):
            break
    sender.stop()
    assert len(hook.got) == 1


def test_a_secret_that_is_none_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("x")
    for name in ("short", "missing"):
        config = AlertConfig(webhook="http://x", secret_file=str(tmp_path / name))
        with pytest.raises(Invalid, match="secret_file"):
            AlertSender(store, config)
