"""Delivers alerts to a webhook, from a thread of its own, until each has arrived.

Any gateway may deliver what any has raised; a receiver may see an alert twice, never not
at all, and tells repetitions by `id`.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import logging
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select, update

from serving.store.alerts import Alert
from serving.store.config import AlertConfig
from serving.store.database import Store
from serving.store.errors import Invalid, StoreError
from serving.store.tables import alerts

POLL_S = 2.0
TIMEOUT_S = 10.0
_log = logging.getLogger(__name__)


class AlertSender:
    """Posts `{"id", "scope", "window", "unit", "percent", "spent", "budget", "at_us", "text"}`."""

    def __init__(self, store: Store, config: AlertConfig, *, poll_s: float = POLL_S) -> None:
        assert config.webhook is not None
        self._store = store
        self._url = config.webhook
        self._attempts = config.attempts
        self._poll_s = poll_s
        self._secret = _secret(config)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="corral-alerts", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def stop(self) -> None:
        """End after the delivery under way; the rest waits in the store."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(TIMEOUT_S + 1)

    def deliver(self) -> int:
        """Try what is due now; the number of alerts that arrived. Raises StoreUnavailable."""
        arrived = 0
        for row in self._claim():
            if self._post(Alert.of(row)):
                arrived += 1
                done = update(alerts).where(alerts.c.id == row.id)
                with self._store.write() as connection:
                    connection.execute(done.values(delivered_us=self._store.now_us()))
        return arrived

    def _claim(self) -> list[Any]:
        """Take what is due, so that no other gateway tries the same at the same time."""
        now = self._store.now_us()
        due = (
            select(alerts)
            .where(
                alerts.c.delivered_us.is_(None),
                alerts.c.attempts < self._attempts,
                alerts.c.next_try_us <= now,
            )
            .limit(20)
        )
        with self._store.read() as connection:
            if connection.execute(due).first() is None:
                return []
        with self._store.write() as connection:
            rows = list(connection.execute(due.with_for_update(skip_locked=True)))
            for row in rows:
                pause_us = int((TIMEOUT_S + 2**row.attempts) * 1e6)
                values = {"attempts": row.attempts + 1, "next_try_us": now + pause_us}
                connection.execute(update(alerts).where(alerts.c.id == row.id).values(values))
        return rows

    def _post(self, alert: Alert) -> bool:
        body = json.dumps({"id": alert.id, **asdict(alert), "text": str(alert)}).encode()
        headers = {"content-type": "application/json"}
        if self._secret is not None:
            digest = hmac.new(self._secret, body, hashlib.sha256).hexdigest()
            headers["x-corral-signature"] = f"sha256={digest}"
        try:
            answer = httpx.post(self._url, content=body, headers=headers, timeout=TIMEOUT_S)
            answer.raise_for_status()
        except httpx.HTTPError as exc:
            _log.warning("the alert %s was not delivered, trying again: %s", alert.id, exc)
            return False
        return True

    def _run(self) -> None:
        while not self._stop.wait(self._poll_s):
            with contextlib.suppress(StoreError):
                self.deliver()


def _secret(config: AlertConfig) -> bytes | None:
    if config.secret_file is None:
        return None
    try:
        secret = Path(config.secret_file).expanduser().read_bytes().strip()
    except OSError as exc:
        raise Invalid(f"alerts.secret_file cannot be read: {exc}") from exc
    if len(secret) < 16:
        raise Invalid("alerts.secret_file must hold at least 16 bytes: `openssl rand -hex 32`")
    return secret
