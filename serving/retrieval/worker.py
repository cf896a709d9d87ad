"""Tells the index what the store's tables say, on a thread of one gateway at a time.

Nothing is remembered but whose turn it is: whatever ends a worker, the next one finds in the
tables what is still to be done, and in rag's ledger what is done already.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

from rag.errors import EmbedderUnavailable, IndexUnavailable, LedgerBusy, RagError
from serving.errors import CorralError
from serving.retrieval.config import RetrievalConfig
from serving.retrieval.replicas import Interrupted
from serving.store.blobs import BlobStore
from serving.store.database import Store
from serving.store.errors import StoreUnavailable
from serving.store.owners import Ownership
from serving.store.secret import new_id
from serving.store.vector_files import VectorFiles
from serving.store.vector_rows import Task
from serving.store.vector_stores import VectorStores

if TYPE_CHECKING:
    from rag.load.pool import ParserPool
    from rag.types import Scope
    from serving.retrieval.library import Library

OWNER_LEASE_S = 60.0
SWEEP_S = 30.0
_LONGEST_WAIT_S = 30.0
_log = logging.getLogger(__name__)


class Worker:
    """One process's thread. It works while it owns the task."""

    def __init__(
        self,
        config: RetrievalConfig,
        store: Store,
        blobs: BlobStore,
        library: Callable[[], Library],
    ) -> None:
        self._config, self._blobs, self._library = config, blobs, library
        self._stores, self._files = VectorStores(store), VectorFiles(store)
        self._owner = Ownership(store, "retrieval", new_id("worker"), OWNER_LEASE_S)
        self._parser: ParserPool | None = None
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="retrieval", daemon=True)
        self._mine, self._ask_at, self._sweep_at = False, 0.0, 0.0
        self._last_tenant = ""
        self._wait_s = config.poll_s

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """There is something to do."""
        self._wake.set()

    def stop(self) -> None:
        """End what is under way, and return when it has ended."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._parser is not None:
            self._parser.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            busy = False
            try:
                busy = self._is_mine() and self.look()
                self._wait_s = self._config.poll_s
            except Interrupted:
                pass
            except (RagError, CorralError) as exc:
                self._wait_s = min(_LONGEST_WAIT_S, 2 * self._wait_s)
                _log.warning("vector stores wait, trying again: %s", exc)
            except Exception:
                self._wait_s = min(_LONGEST_WAIT_S, 2 * self._wait_s)
                _log.exception("looking after the vector stores failed; it is tried again")
            if not busy:
                self._wake.wait(self._wait_s)
                self._wake.clear()
        with suppress(StoreUnavailable):
            self._owner.leave()

    def look(self) -> bool:
        """Do the next thing, if there is one; whether there was."""
        if time.monotonic() >= self._sweep_at:
            self._sweep_at = time.monotonic() + SWEEP_S
            self._files.sweep()
        ended = self._stores.ended()
        for tenant, store in ended:
            self._library().remove_store(_scope(tenant, store))
            self._stores.emptied(store)
        tasks = self._files.tasks(self._config.group_files, self._last_tenant)
        if not tasks:
            return bool(ended)
        self._last_tenant = tasks[0].tenant_id
        scope = _scope(tasks[0].tenant_id, tasks[0].store_id)
        for task in tasks:
            if task.work != "ingest":
                self._settle(scope, task)
        fresh = [task for task in tasks if task.work == "ingest"]
        # One that went wrong is tried alone, so that it takes no other along.
        together = [task for task in fresh if not task.attempts] or fresh[:1]
        if together:
            self._ingest(scope, together)
        return True

    def _is_mine(self) -> bool:
        now = time.monotonic()
        if now >= self._ask_at:
            self._mine = self._owner.hold()
            self._ask_at = now + OWNER_LEASE_S / 4
        return self._mine

    def _beat(self) -> None:
        """The work goes on: keep the task meanwhile."""
        self._is_mine()

    def _settle(self, scope: Scope, task: Task) -> None:
        from serving.retrieval.library import file_uri

        uri = file_uri(task.file.file_id, task.file.filename)
        if task.work == "remove":
            self._library().remove(scope, uri)
            self._files.done(task, usage_bytes=0)
        else:
            self._library().describe(scope, uri, task.file.attributes)
            self._files.done(task)

    def _ingest(self, scope: Scope, tasks: list[Task]) -> None:
        from rag.load.pool import ParserPool
        from serving.retrieval.ingest import ingest

        if self._parser is None:
            self._parser = ParserPool(self._config.load)
        library, files = self._library(), [task.file for task in tasks]
        try:
            found = ingest(library, self._blobs, self._parser, scope, files, beat=self._beat)
        except (Interrupted, IndexUnavailable, LedgerBusy):
            raise  # no file's fault, and it passes
        except (EmbedderUnavailable, ValueError) as exc:
            for task in tasks:
                self._failed(task, exc)
            raise
        for task in tasks:
            outcome = asdict(found[task.file.file_id])
            status = "completed" if outcome["error_code"] is None else "failed"
            self._files.done(task, status=status, **outcome)

    def _failed(self, task: Task, exc: Exception) -> None:
        if task.attempts + 1 < self._config.max_attempts:
            self._files.tried(task)
            return
        self._files.done(
            task, status="failed", error_code="server_error", error_message=str(exc)[:500]
        )


def _scope(tenant: str, store: str) -> Scope:
    """A gateway whose stores nobody uses loads none of this."""
    from rag.types import Scope

    return Scope(tenant, store)
