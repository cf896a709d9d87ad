"""How gateways hear at once that a key, a tenant or a limit has changed.

`Stamp.read` is asked on every request. What was loaded under one value holds until the
value differs: read the stamp first, then load.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from pathlib import Path
from typing import Protocol

CHANNEL = "corral_changed"
_log = logging.getLogger(__name__)


class Stamp(Protocol):
    """A value that differs after every announced change."""

    def read(self) -> object:
        """The present value; costs about a microsecond."""
        ...

    def announce(self) -> None:
        """Called after a change was committed."""
        ...

    def close(self) -> None:
        """End what runs in the background."""
        ...


class FileStamp:
    """For SQLite: the size of a file beside the database, which grows by a byte a change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))

    def read(self) -> object:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return None
        return found.st_size, found.st_ino

    def announce(self) -> None:
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, b".")
        finally:
            os.close(handle)

    def close(self) -> None:
        """Nothing runs."""


class NotifyStamp:
    """For PostgreSQL: a thread that listens. While it cannot, caches live by their age alone."""

    RETRY_S = 2.0

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._count = 0
        self._stop = threading.Event()
        self._wake, self._woken = os.pipe()[::-1]
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="corral-listen", daemon=True)
        self._thread.start()
        self._ready.wait(5.0)

    def read(self) -> object:
        return self._count

    def announce(self) -> None:
        self._count += 1  # the others hear of it from the transaction's own NOTIFY

    def close(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
            os.write(self._wake, b".")
            self._thread.join(5.0)
            os.close(self._wake)
            os.close(self._woken)

    def _run(self) -> None:
        import psycopg

        while not self._stop.is_set():
            try:
                with psycopg.connect(self._conninfo, autocommit=True) as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    self._count += 1  # what was announced before is not told again
                    self._ready.set()
                    while not self._stop.is_set():
                        select.select([connection.fileno(), self._woken], [], [])
                        for _ in connection.notifies(timeout=0):
                            self._count += 1
            except psycopg.Error as exc:
                _log.warning("the database is not heard, trying again: %s", exc)
                self._stop.wait(self.RETRY_S)
