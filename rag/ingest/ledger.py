"""What has been ingested: files and the ids of their chunks, in SQLite.

A chunk is written here as `new` before the index gets it and `live` after the index has
acknowledged it; `old` ones are to be deleted. So whenever the process dies, what the index may
hold is known: the next run stores the `new` ones again (the same ids, hence no doubles), deletes
the `old` ones, and every `live` one is in the index.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from rag.errors import LedgerBusy, LedgerUnavailable
from rag.types import Scope

__all__ = ["FileRow", "Ledger", "Plan", "State"]

State = Literal["pending", "done", "failed"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, store TEXT NOT NULL, uri TEXT NOT NULL,
    sha256 TEXT NOT NULL, fingerprint TEXT NOT NULL, state TEXT NOT NULL,
    error TEXT NOT NULL DEFAULT '', bytes INTEGER NOT NULL DEFAULT 0, updated_at REAL NOT NULL,
    UNIQUE (tenant, store, uri));
CREATE TABLE IF NOT EXISTS chunks (
    file INTEGER NOT NULL REFERENCES files (id) ON DELETE CASCADE,
    id TEXT NOT NULL, state TEXT NOT NULL, PRIMARY KEY (file, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seen (
    source TEXT NOT NULL, file INTEGER NOT NULL REFERENCES files (id) ON DELETE CASCADE,
    PRIMARY KEY (source, file)) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class FileRow:
    """A file as the ledger has it. `updated_at` is a Unix time."""

    uri: str
    sha256: str
    fingerprint: str
    state: State
    error: str
    size: int
    updated_at: float
    chunks: int
    """That the index has acknowledged."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What storing a file takes."""

    file: int
    missing: frozenset[str]
    """Chunks to upsert; the others of the file are in the index already."""
    old: tuple[str, ...]
    """Chunks to delete once the missing ones are stored."""


class Ledger:
    """One scope's part of the ledger in a file. For one thread; one process writes at a time."""

    def __init__(self, path: Path, scope: Scope, *, write: bool = True) -> None:
        """Open or make it. Raises LedgerBusy if another process writes, LedgerUnavailable."""
        self._scope = (scope.tenant, scope.store)
        self._lock = _locked(path) if write else None
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.executescript(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;"
                "PRAGMA busy_timeout=10000;" + _SCHEMA
            )
        except sqlite3.Error as exc:
            raise LedgerUnavailable(f"the ledger {path} cannot be opened: {exc}") from exc

    def close(self) -> None:
        """Close the file and let others write."""
        self._db.close()
        if self._lock is not None:
            os.close(self._lock)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is durable at its end, or undone."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def files(self, state: State | None = None) -> Iterator[FileRow]:
        """Every file, by URI."""
        rows = self._db.execute(
            "SELECT uri, sha256, fingerprint, state, error, bytes, updated_at, "
            "(SELECT count(*) FROM chunks WHERE file = files.id AND chunks.state = 'live') "
            "FROM files WHERE tenant = ? AND store = ? AND (? IS NULL OR state = ?) ORDER BY uri",
            (*self._scope, state, state),
        )
        return (FileRow(*row) for row in rows)

    def known(self) -> dict[str, tuple[int, str, str, State, str]]:
        """URI → (file, sha256, fingerprint, state, error)."""
        rows = self._db.execute(
            "SELECT uri, id, sha256, fingerprint, state, error FROM files "
            "WHERE tenant = ? AND store = ?",
            self._scope,
        )
        return {row[0]: row[1:] for row in rows}

    def begin(self, uri: str, sha256: str, fingerprint: str, size: int, ids: set[str]) -> Plan:
        """Note that `uri` is to have just the chunks `ids`. Inside of a transaction."""
        file = self._file(uri, sha256, fingerprint, size, "pending", "")
        had = dict(self._db.execute("SELECT id, state FROM chunks WHERE file = ?", (file,)))
        kept = {one for one in ids if had.get(one) == "live"}
        self._db.executemany(
            "INSERT INTO chunks VALUES (?, ?, 'new') ON CONFLICT DO UPDATE SET state = 'new'",
            ((file, one) for one in ids - kept),
        )
        old = tuple(one for one in had if one not in ids)
        self._db.executemany(
            "UPDATE chunks SET state = 'old' WHERE file = ? AND id = ?",
            ((file, one) for one in old),
        )
        return Plan(file, frozenset(ids - kept), old)

    def stored(self, chunks: Iterable[tuple[int, str]]) -> None:
        """The index acknowledged these (file, id). Inside of a transaction."""
        self._db.executemany("UPDATE chunks SET state = 'live' WHERE file = ? AND id = ?", chunks)

    def finish(self, file: int) -> None:
        """The file's old chunks are deleted and all others stored. Inside of a transaction."""
        self._db.execute("DELETE FROM chunks WHERE file = ? AND state = 'old'", (file,))
        self._db.execute(
            "UPDATE files SET state = 'done', updated_at = ? WHERE id = ?", (time.time(), file)
        )

    def failed(self, uri: str, sha256: str, fingerprint: str, size: int, error: str) -> None:
        """The file could not be read or parsed; chunks of an older version stay."""
        self._file(uri, sha256, fingerprint, size, "failed", error)

    def saw(self, source: str, uris: Collection[str]) -> None:
        """The source lists these files. Inside of a transaction."""
        self._db.executemany(
            "INSERT OR IGNORE INTO seen SELECT ?, id FROM files "
            "WHERE tenant = ? AND store = ? AND uri = ?",
            ((source, *self._scope, uri) for uri in uris),
        )

    def seen(self, source: str) -> set[str]:
        """Files that the source has ever listed and that are still here."""
        rows = self._db.execute(
            "SELECT uri FROM seen JOIN files ON files.id = seen.file "
            "WHERE source = ? AND tenant = ? AND store = ?",
            (source, *self._scope),
        )
        return {uri for (uri,) in rows}

    def chunk_ids(self, uri: str) -> list[str]:
        """Every chunk of the file that the index may hold."""
        rows = self._db.execute(
            "SELECT chunks.id FROM chunks JOIN files ON files.id = chunks.file "
            "WHERE tenant = ? AND store = ? AND uri = ?",
            (*self._scope, uri),
        )
        return [one for (one,) in rows]

    def live_ids(self) -> set[str]:
        """Every chunk that the index has acknowledged."""
        rows = self._db.execute(
            "SELECT chunks.id FROM chunks JOIN files ON files.id = chunks.file "
            "WHERE tenant = ? AND store = ? AND chunks.state = 'live'",
            self._scope,
        )
        return {one for (one,) in rows}

    def forget(self, uri: str) -> None:
        """The file's chunks are deleted: forget it. Inside of a transaction."""
        self._db.execute(
            "DELETE FROM files WHERE tenant = ? AND store = ? AND uri = ?", (*self._scope, uri)
        )

    def _file(
        self, uri: str, sha256: str, fingerprint: str, size: int, state: State, error: str
    ) -> int:
        row = self._db.execute(
            "INSERT INTO files (tenant, store, uri, sha256, fingerprint, state, error, bytes, "
            "updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (tenant, store, uri) DO UPDATE SET sha256 = excluded.sha256, "
            "fingerprint = excluded.fingerprint, state = excluded.state, error = excluded.error, "
            "bytes = excluded.bytes, updated_at = excluded.updated_at RETURNING id",
            (*self._scope, uri, sha256, fingerprint, state, error, size, time.time()),
        ).fetchone()
        return int(row[0])


def _locked(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(file)
        raise LedgerBusy(
            f"another process is ingesting with the ledger {path}: wait for it, or end it"
        ) from exc
    return file
