"""What everybody who works on jobs shares: the store's tables, the blobs, the settings."""

from __future__ import annotations

from dataclasses import dataclass

from serving.finetuning.settings import Settings
from serving.store.blobs import BlobStore
from serving.store.database import Store, connect
from serving.store.job_events import JobEvents
from serving.store.jobs import JobStore
from serving.store.registry import Registry


@dataclass(frozen=True)
class Shop:
    """One process's door to jobs and registry. Threads may share it."""

    settings: Settings
    store: Store
    blobs: BlobStore
    jobs: JobStore
    events: JobEvents
    registry: Registry

    @staticmethod
    def over(settings: Settings, store: Store, blobs: BlobStore) -> Shop:
        """On a store that somebody else opened and will close."""
        lease_s = settings.config.finetuning.lease_s
        return Shop(
            settings, store, blobs, JobStore(store, lease_s), JobEvents(store), Registry(store)
        )

    @staticmethod
    def open(settings: Settings) -> Shop:
        """On a store of its own, which a gateway has migrated. Raises StoreUnavailable."""
        config, folder = settings.config.store, settings.home.store
        store = connect(config, folder)
        store.set_clock()
        return Shop.over(settings, store, BlobStore(store, config.blobs or str(folder / "blobs")))
