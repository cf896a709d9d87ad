"""load → split → embed → upsert.

Files are read, parsed and split in threads (parsing itself in child processes); their chunks
gather into batches across files; one thread embeds while this one stores the batch before.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from rag.errors import RagError
from rag.ingest.config import IngestConfig
from rag.ingest.ledger import Ledger
from rag.ingest.prepare import Parser, Prepared, prepare
from rag.ingest.progress import Progress
from rag.load.parse import VERSION
from rag.load.source import Entry, Source
from rag.protocols import Embedder, VectorIndex
from rag.split.splitter import Splitter
from rag.types import Chunk, Scope, Vectors

__all__ = ["Ingestor", "Report"]

Report = Callable[[Progress], None]
_IN_FLIGHT = 2
"""Batches that are being embedded or wait to be."""


@dataclass
class _Batch:
    """Chunks to store together, and whose they are."""

    chunks: list[Chunk] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)


@dataclass
class _Open:
    """A file with chunks that are not stored yet."""

    missing: int
    old: tuple[str, ...]
    size: int


class Ingestor:
    """Brings an index up to date with sources. Use once for each run, from one thread."""

    def __init__(
        self,
        index: VectorIndex,
        embedder: Embedder,
        ledger: Ledger,
        parser: Parser,
        splitter: Splitter,
        scope: Scope,
        config: IngestConfig,
        report: Report | None = None,
    ) -> None:
        self._index, self._embedder, self._ledger = index, embedder, ledger
        self._parser, self._splitter, self._scope = parser, splitter, scope
        self._config, self._report = config, report
        self._fingerprint = f"{VERSION}/{splitter.fingerprint}/{embedder.name}"
        self._known = ledger.known()
        self._waiting: list[Prepared] = []
        self._batch = _Batch()
        self._embedding: deque[tuple[_Batch, Future[Vectors]]] = deque()
        self._embed_pool: ThreadPoolExecutor
        self._open: dict[int, _Open] = {}
        self._listed_by: list[tuple[str, set[str]]] = []
        self._began = time.monotonic()
        self.progress = Progress()
        self.faults: list[RagError] = []

    def run(self, sources: Sequence[Source]) -> Progress:
        """Ingest all of them. Files fail one by one, noted in the ledger; a source that cannot be
        listed whole is left as it is, and `faults` says why. Raises errors of the embedder and
        the index; what was acknowledged by then stays."""
        listed = []
        for source in sources:
            try:
                listed.append((source.uri, list(source.entries())))
            except RagError as exc:
                self.faults.append(exc)
        entries = {entry.uri: entry for _, found in listed for entry in found}
        self._listed_by = [(uri, {entry.uri for entry in found}) for uri, found in listed]
        self.progress.files_total = len(entries)
        self.progress.bytes_total = sum(entry.size for entry in entries.values())
        self._prepare_all(entries.values())
        with self._ledger.transaction():
            for name, uris in self._listed_by:
                self._ledger.saw(name, uris)
        if self._config.remove_missing:
            self.remove({old for uri, _ in listed for old in self._ledger.seen(uri)} - set(entries))
        self._tell()
        return self.progress

    def remove(self, uris: Collection[str]) -> None:
        """Delete files with all their chunks."""
        for uri in uris:
            self._index.delete(self._scope, self._ledger.chunk_ids(uri))
            with self._ledger.transaction():
                self._ledger.forget(uri)
            self.progress.removed += 1

    def _prepare_all(self, entries: Collection[Entry]) -> None:
        ready: queue.SimpleQueue[Future[Prepared]] = queue.SimpleQueue()
        threads = self._parser.size + 1
        with _threads(threads, "prepare") as pool, _threads(1, "embed") as self._embed_pool:
            running = 0
            for entry in entries:
                if running >= 2 * threads:
                    self._take(ready.get().result())
                    running -= 1
                pool.submit(self._prepare, entry).add_done_callback(ready.put)
                running += 1
            for _ in range(running):
                self._take(ready.get().result())
            self._admit()
            self._send()
            while self._embedding:
                self._store()

    def _prepare(self, entry: Entry) -> Prepared:
        return prepare(
            entry, self._parser, self._splitter, lambda sha256: self._unchanged(entry.uri, sha256)
        )

    def _unchanged(self, uri: str, sha256: str) -> bool:
        """Whether nothing is to be done: stored, or failed in the same way before."""
        row = self._known.get(uri)
        if row is None:
            return False
        settled = row[3] == "done" or (row[3] == "failed" and not self._config.retry_failed)
        return settled and row[1:3] == (sha256, self._fingerprint)

    def _take(self, prepared: Prepared) -> None:
        """What a thread made of a file: gather its chunks, or note how it ended."""
        for stage, took in prepared.stage_s.items():
            self.progress.stage_s[stage] += took
        uri = prepared.entry.uri
        if prepared.error:
            with self._ledger.transaction():
                self._ledger.failed(
                    uri, prepared.sha256, self._fingerprint, prepared.size, prepared.error
                )
            self._done(prepared.entry.size, failed=True)
        elif prepared.chunks is None:
            self.progress.unchanged += 1
            self._done(prepared.entry.size, failed=self._known[uri][3] == "failed")
        else:
            self._waiting.append(prepared)
            if sum(len(one.chunks or ()) for one in self._waiting) >= self._config.batch_chunks:
                self._admit()

    def _admit(self) -> None:
        """Note in the ledger what the waiting files are to have, then queue what is missing."""
        waiting, self._waiting = self._waiting, []
        plans = []
        with self._ledger.transaction():
            for one in waiting:
                chunks = {chunk.id: chunk for chunk in one.chunks or ()}
                plan = self._ledger.begin(
                    one.entry.uri, one.sha256, self._fingerprint, one.size, set(chunks)
                )
                plans.append((one, chunks, plan))
            admitted = {one.entry.uri for one in waiting}
            for source, uris in self._listed_by:
                self._ledger.saw(source, admitted & uris)
        settled = []
        for one, chunks, plan in plans:
            self.progress.documents += one.documents
            self.progress.chunks_kept += len(chunks) - len(plan.missing)
            self._open[plan.file] = _Open(len(plan.missing), plan.old, one.entry.size)
            if not plan.missing:
                settled.append(plan.file)
            for chunk in chunks.values():
                if chunk.id in plan.missing:
                    self._batch.chunks.append(chunk)
                    self._batch.owners.append(plan.file)
                    if len(self._batch.chunks) >= self._config.batch_chunks:
                        self._send()
        self._settle([], settled)

    def _send(self) -> None:
        """Hand the batch to the thread that embeds; store an earlier one while it works."""
        batch, self._batch = self._batch, _Batch()
        if not batch.chunks:
            return
        texts = [chunk.embedded for chunk in batch.chunks if not chunk.is_parent]
        self._embedding.append((batch, self._embed_pool.submit(self._embed, texts)))
        while len(self._embedding) > _IN_FLIGHT:
            self._store()

    def _embed(self, texts: list[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self._embedder.dimension), np.float32)
        with self._timed("embed"):
            return self._embedder.encode(texts)

    def _store(self) -> None:
        """Upsert the oldest batch and settle the files that are complete with it."""
        batch, vectors = self._embedding.popleft()
        found = vectors.result()
        with self._timed("index"):
            self._index.upsert(self._scope, batch.chunks, found)
        complete = []
        for file in batch.owners:
            self._open[file].missing -= 1
            if not self._open[file].missing:
                complete.append(file)
        self.progress.chunks += len(batch.chunks)
        stored = [(file, chunk.id) for file, chunk in zip(batch.owners, batch.chunks, strict=True)]
        self._settle(stored, complete)

    def _settle(self, stored: list[tuple[int, str]], complete: list[int]) -> None:
        """Delete what complete files no longer have, then note all of it at once."""
        if not (stored or complete):
            return
        old = [one for file in complete for one in self._open[file].old]
        if old:
            with self._timed("index"):
                self._index.delete(self._scope, old)
        with self._ledger.transaction():
            self._ledger.stored(stored)
            for file in complete:
                self._ledger.finish(file)
        for file in complete:
            self._done(self._open.pop(file).size)
        self._tell()

    def _done(self, size: int, *, failed: bool = False) -> None:
        self.progress.files_done += 1
        self.progress.bytes_done += size
        self.progress.failed += failed
        self._tell()

    def _tell(self) -> None:
        self.progress.elapsed_s = time.monotonic() - self._began
        if self._report is not None:
            self._report(self.progress)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.progress.stage_s[stage] += time.perf_counter() - began


@contextmanager
def _threads(count: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """A pool whose queued work is dropped when the run fails."""
    pool = ThreadPoolExecutor(count, f"ingest-{name}")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
