"""A backup taken while the store is written to, and what comes back out of it."""

from __future__ import annotations

import shutil
import tarfile
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import update

from serving.store.audit import SYSTEM
from serving.store.backup import backup, restore
from serving.store.blobs import BlobStore
from serving.store.checking import check
from serving.store.config import StoreConfig
from serving.store.database import Store, connect
from serving.store.errors import Conflict, Invalid, NotFound
from serving.store.keys import KeySpec, KeyStore
from serving.store.ledger import Ledger
from serving.store.ledger_types import Payer, Settle, Tokens
from serving.store.limits import LimitBook
from serving.store.tables import windows
from serving.store.tenants import TenantStore
from tests.unit.store.conftest import Opener
from tests.unit.store.test_ledger import PRICES


@pytest.fixture(autouse=True)
def programs(config: StoreConfig) -> None:
    if config.url is not None and not (shutil.which("pg_dump") and shutil.which("pg_restore")):
        pytest.skip("no pg_dump here")


def test_what_was_backed_up_is_restored(
    store: Store, config: StoreConfig, opener: Opener, tmp_path: Path
) -> None:
    folder, file = tmp_path / "store", tmp_path / "all.tar"
    TenantStore(store).create("acme", SYSTEM)
    secret = KeyStore(store).create(KeySpec("acme"), SYSTEM).secret
    files = BlobStore(store, str(folder / "blobs"))
    kept = files.put("acme", [b"kept"], name="a", purpose="batch")
    assert backup(store, files, file) == file.stat().st_size
    assert file.stat().st_mode & 0o777 == 0o600
    files.delete("acme", kept.id)
    KeyStore(store).create(KeySpec("acme", name="later"), SYSTEM)
    TenantStore(store).create("later", SYSTEM)
    store.close()
    with pytest.raises(Conflict, match="--force"):
        restore(config, folder, file)
    restore(config, folder, file, force=True)
    again = opener()
    assert KeyStore(again).identify(secret).tenant_id == "acme"
    assert [key.name for key in KeyStore(again).all("acme")] == [""]
    with pytest.raises(NotFound):
        TenantStore(again).get("later")
    assert b"".join(BlobStore(again, str(folder / "blobs")).open("acme", kept.id)) == b"kept"
    assert check(again) == []


def test_a_backup_under_load_is_consistent(
    store: Store, config: StoreConfig, tmp_path: Path
) -> None:
    stop = threading.Event()

    def write() -> None:
        ledger = Ledger(store, PRICES, LimitBook(store, 60), "gateway-1")
        while not stop.is_set():
            ledger.apply([Settle(Payer("default", "k", "m"), Tokens(input=3), "/x")])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for n in range(3):
            backup(store, None, tmp_path / f"{n}.tar")
    finally:
        stop.set()
        writer.join()
    if config.url is None:
        other = tmp_path / "other"
        restore(StoreConfig(), other, tmp_path / "2.tar")
        with closing(connect(StoreConfig(), other)) as restored:
            assert check(restored) == []


def test_a_backup_overwrites_nothing(store: Store, tmp_path: Path) -> None:
    (tmp_path / "mine.tar").write_bytes(b"mine")
    with pytest.raises(Conflict, match="exists already"):
        backup(store, None, tmp_path / "mine.tar")
    assert (tmp_path / "mine.tar").read_bytes() == b"mine"


def test_what_is_no_backup_is_refused_and_changes_nothing(
    store: Store, config: StoreConfig, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("hello")
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    for name in ("text", "empty.tar", "missing"):
        with pytest.raises(Invalid, match="no backup"):
            restore(config, tmp_path / "store", tmp_path / name, force=True)
    assert TenantStore(store).get("default").id == "default"


def test_a_check_finds_a_window_that_disagrees(store: Store) -> None:
    ledger = Ledger(store, PRICES, LimitBook(store, 60), "gateway-1")
    ledger.apply([Settle(Payer("default", "k", "m"), Tokens(input=3), "/x")])
    assert check(store) == []
    with store.write() as connection:
        one = windows.c.id.startswith("tenant:default@")
        connection.execute(update(windows).where(one).values(spent_nusd=1))
    assert len([fault for fault in check(store) if "tenant:default@" in fault]) == 2
