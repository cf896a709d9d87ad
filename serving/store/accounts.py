"""Everything a gateway needs of the store, opened and closed together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from serving.store.alerts import AlertMetrics
from serving.store.blobs import BlobStore
from serving.store.config import AlertConfig, OidcConfig, PriceConfig, StoreConfig
from serving.store.database import Store
from serving.store.identity import Identity
from serving.store.key_cache import KeyCache
from serving.store.keys import KeyStore
from serving.store.ledger import Ledger
from serving.store.ledger_writer import LedgerWriter
from serving.store.limits import LimitBook, LimitStore
from serving.store.opening import open_store
from serving.store.prices import PriceBook
from serving.store.secret import new_id
from serving.store.tenants import TenantStore

if TYPE_CHECKING:
    from serving.store.alert_sender import AlertSender


@dataclass
class Accounts:
    """Keys, tenants, limits, the ledger and blobs of one gateway process."""

    store: Store
    tenants: TenantStore
    keys: KeyStore
    cache: KeyCache
    limits: LimitStore
    limit_book: LimitBook
    prices: PriceBook
    ledger: LedgerWriter
    blobs: BlobStore
    tokens: KeyCache | None
    sender: AlertSender | None

    @staticmethod
    def open(
        config: StoreConfig,
        folder: Path,
        admin_key: str,
        *,
        prices: Mapping[str, PriceConfig] | None = None,
        alerts: AlertConfig | None = None,
        oidc: OidcConfig | None = None,
        registry: CollectorRegistry | None = None,
    ) -> Accounts:
        """Open, migrate, and begin to write. `folder` is `$CORRAL_HOME/store`.

        Raises StoreUnavailable, StoreTooNew, Invalid.
        """
        store = open_store(config, folder, admin_key)
        book, priced = LimitBook(store, config.key_cache_s), PriceBook(prices or {})
        alerts = alerts or AlertConfig()
        metrics = None if registry is None else AlertMetrics(registry)
        ledger = Ledger(store, priced, book, new_id("gw"), alerts.thresholds, metrics)
        accounts = Accounts(
            store=store,
            tenants=TenantStore(store),
            keys=KeyStore(store),
            cache=KeyCache(store, config.key_cache_s, KeyStore(store).identify),
            limits=LimitStore(store),
            limit_book=book,
            prices=priced,
            ledger=LedgerWriter(ledger, config.lease_s),
            blobs=BlobStore(store, config.blobs or str(folder / "blobs")),
            tokens=None if oidc is None else _tokens(store, config, oidc),
            sender=None if alerts.webhook is None else _sender(store, alerts),
        )
        accounts.ledger.start()
        if accounts.sender is not None:
            accounts.sender.start()
        return accounts

    async def authenticate(self, presented: str) -> Identity:
        """Who presents this key or token. Raises KeyRefused, StoreUnavailable."""
        if self.tokens is not None and presented.count(".") == 2:
            return await self.tokens.authenticate(presented)
        return await self.cache.authenticate(presented)

    def close(self) -> None:
        """Write what waits, end the threads, close the connections."""
        self.ledger.stop()
        if self.sender is not None:
            self.sender.stop()
        self.store.close()


def _sender(store: Store, alerts: AlertConfig) -> AlertSender:
    from serving.store.alert_sender import AlertSender  # loads an HTTP client

    return AlertSender(store, alerts)


def _tokens(store: Store, config: StoreConfig, oidc: OidcConfig) -> KeyCache:
    from serving.store.oidc import TokenDoor  # loads cryptography

    return KeyCache(store, config.key_cache_s, TokenDoor(store, oidc).identify)
