"""Backup and restore: one tar file with the database, and the blobs unless they are left out.

A backup is taken while the stack serves: SQLite by its online backup, PostgreSQL by
`pg_dump`. Restoring replaces everything, and wants the stack stopped.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, text

from serving.store.blobs import BlobStore
from serving.store.config import StoreConfig
from serving.store.database import Store, connect, sqlite_path, store_url
from serving.store.errors import Conflict, Invalid, StoreUnavailable
from serving.store.migrating import HEAD, migrate, revision
from serving.store.tables import audit, blobs, usage

_FORMAT = 1
_DATABASES = {"sqlite": "corral.db", "postgresql": "corral.dump"}


def backup(store: Store, files: BlobStore | None, target: Path) -> int:
    """Write `target`, whole or not at all; its size in bytes. `files`: blobs to take along.

    Raises Conflict if it exists, StoreUnavailable.
    """
    if target.exists():
        raise Conflict(f"{target} exists already; name another file")
    kind = "sqlite" if store.is_sqlite else "postgresql"
    partial = target.with_name(f".{target.name}.partial")
    try:
        with (
            tempfile.TemporaryDirectory(dir=target.parent) as folder,
            _private(partial) as file,
            tarfile.open(fileobj=file, mode="w") as tar,
        ):
            database = Path(folder) / _DATABASES[kind]
            _dump(store, database)
            about = {"format": _FORMAT, "database": kind, "revision": revision(store)}
            _add(tar, "backup.json", json.dumps(about).encode())
            tar.add(database, _DATABASES[kind])
            for name, data in _blobs(files) if files is not None else ():
                _add(tar, name, data)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return target.stat().st_size


def restore(
    config: StoreConfig, folder: Path, source: Path, *, force: bool = False
) -> dict[str, Any]:
    """Replace the store by the backup in `source`; what the backup says of itself.

    Raises Conflict when the store is not empty and `force` is not given, Invalid for a
    file that is no backup of this kind of database.
    """
    url = store_url(config, folder)
    kind = url.get_backend_name()
    if not force and not _is_empty(config, folder):
        raise Conflict("the store is not empty; --force replaces it")
    try:
        with tarfile.open(source) as tar, tempfile.TemporaryDirectory() as unpacked:
            about = json.loads(_read(tar, "backup.json"))
            if about.get("format") != _FORMAT or about.get("database") != kind:
                raise Invalid(
                    f"{source} is a backup of {about.get('database')}, the store is {kind}"
                )
            tar.extract(_DATABASES[kind], unpacked, filter="data")
            database = Path(unpacked) / _DATABASES[kind]
            if kind == "sqlite":
                _restore_sqlite(config, folder, database)
            else:
                _restore_postgresql(config, folder, database)
            _restore_blobs(config, folder, tar)
    except (OSError, tarfile.TarError, KeyError, ValueError) as exc:
        if isinstance(exc, Invalid):
            raise
        raise Invalid(f"{source} is no backup of corral: {exc}") from exc
    store = connect(config, folder)
    try:
        migrate(store)
        store.stamp.announce()
    finally:
        store.close()
    return dict(about)


def _is_empty(config: StoreConfig, folder: Path) -> bool:
    path = sqlite_path(config, folder)
    if path is not None and not path.exists():
        return True
    store = connect(config, folder)
    try:
        found = revision(store)
        if found != HEAD:
            return found is None
        with store.read() as connection:
            tables = (usage, blobs, audit)
            counts = [
                connection.execute(select(func.count()).select_from(t)).scalar_one() for t in tables
            ]
        return sum(counts) == 0
    finally:
        store.close()


def _dump(store: Store, target: Path) -> None:
    if store.is_sqlite:
        source = sqlite3.connect(str(store.engine.url.database))
        with closing(source), closing(sqlite3.connect(target)) as copy:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
        return
    _run("pg_dump", "--format=custom", "--no-owner", "--file", str(target), store=store)


def _restore_sqlite(config: StoreConfig, folder: Path, database: Path) -> None:
    with closing(sqlite3.connect(database)) as found:
        verdict = found.execute("PRAGMA integrity_check").fetchone()[0]
        if verdict != "ok":
            raise Invalid(f"the database in the backup is damaged: {verdict}")
    path = sqlite_path(config, folder)
    assert path is not None
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_suffix(".restored")
    shutil.copyfile(database, fresh)
    fresh.chmod(0o600)
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    os.replace(fresh, path)


def _restore_postgresql(config: StoreConfig, folder: Path, dump: Path) -> None:
    store = connect(config, folder)
    try:
        with store.write() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        options = ["--no-owner", "--exit-on-error", "--single-transaction", "--schema=public"]
        _run("pg_restore", *options, str(dump), store=store)
    finally:
        store.close()


def _run(program: str, *arguments: str, store: Store) -> None:
    """Run one of PostgreSQL's programs. The password goes by environment, not by arguments."""
    if shutil.which(program) is None:
        raise StoreUnavailable(
            f"{program} is not installed (Debian: apt install postgresql-client)"
        )
    url = store.engine.url
    environment = {**os.environ, **({"PGPASSWORD": str(url.password)} if url.password else {})}
    plain = url.set(drivername="postgresql", password=None).render_as_string()
    option = ["--dbname", plain]
    done = subprocess.run(
        [program, *option, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise StoreUnavailable(f"{program} failed: {done.stderr.strip()[:500]}")


@contextmanager
def _private(path: Path) -> Iterator[io.BufferedWriter]:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _blobs(files: BlobStore) -> Iterator[tuple[str, bytes]]:
    for blob, _ in files.paths():
        with suppress(FileNotFoundError):  # deleted meanwhile
            yield f"blobs/{blob.tenant_id}/{blob.id}", b"".join(files.open(blob.tenant_id, blob.id))


def _restore_blobs(config: StoreConfig, folder: Path, tar: tarfile.TarFile) -> None:
    store = connect(config, folder)
    try:
        files = BlobStore(store, config.blobs or str(folder / "blobs"))
        for member in tar.getmembers():
            parts = member.name.split("/")
            if member.isfile() and parts[0] == "blobs" and len(parts) == 3:
                files.put_back(parts[1], parts[2], _read(tar, member.name))
    finally:
        store.close()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o600
    tar.addfile(info, io.BytesIO(data))


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file.read()
