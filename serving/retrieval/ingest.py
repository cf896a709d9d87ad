"""Files of one store into the index, by rag's pipeline. Raises only what is not a file's fault."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rag.errors import SourceUnreadable, Unparsable
from rag.ingest.config import IngestConfig
from rag.ingest.ledger import FileRow, Ledger
from rag.ingest.pipeline import Ingestor
from rag.ingest.prepare import Parser
from rag.load.source import Entry
from rag.protocols import RawFile
from rag.split.splitter import Splitter
from rag.types import Document, Scope
from serving.retrieval.library import Library, file_uri
from serving.store.blobs import BlobStore
from serving.store.errors import NotFound
from serving.store.vector_rows import StoreFile

_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Indexed:
    """What became of a file; `error_code` is OpenAI's, None if all went well."""

    usage_bytes: int = 0
    chunk_tokens: int | None = None
    error_code: str | None = None
    error_message: str | None = None


def ingest(
    library: Library,
    blobs: BlobStore,
    parser: Parser,
    scope: Scope,
    files: Sequence[StoreFile],
    beat: Callable[[], None],
) -> dict[str, Indexed]:
    """By file id. `beat` is called as the work goes on. Raises RagError and CorralError of the
    embedder, the index, the ledger; what was indexed by then is not done again."""
    groups: dict[str, list[StoreFile]] = {}
    for file in files:
        groups.setdefault(repr(sorted((file.chunking or {}).items())), []).append(file)
    found: dict[str, Indexed] = {}
    with library.ledger(scope) as ledger:
        for group in groups.values():
            splitter = library.splitter(group[0].chunking)
            coded = _Coded(parser)
            ingestor = Ingestor(
                library.index, library.embedder, ledger, coded, splitter, scope,
                IngestConfig(remove_missing=False, retry_failed=True), lambda _: beat(),
            )  # fmt: skip
            ingestor.run([_Uploads(scope.tenant, blobs, group, library.config.load.max_file_mib)])
            rows = {row.uri: row for row in ledger.files()}
            for file in group:
                uri = file_uri(file.file_id, file.filename)
                found[file.file_id] = _outcome(
                    library, scope, ledger, rows[uri], coded.codes, splitter
                )
    for file in files:
        if found[file.file_id].error_code is None:
            # Passages that were there already have the attributes of their time.
            library.describe(scope, file_uri(file.file_id, file.filename), file.attributes)
    return found


@dataclass(frozen=True)
class _Uploads:
    """A `Source` of uploaded files."""

    tenant: str
    blobs: BlobStore
    files: Sequence[StoreFile]
    max_file_mib: int

    @property
    def uri(self) -> str:
        return "uploads"

    def entries(self) -> Iterator[Entry]:
        """See `Source.entries`."""
        for file in self.files:
            uri = file_uri(file.file_id, file.filename)
            yield Entry(uri, self._reader(file.file_id, uri), metadata=dict(file.attributes or {}))

    def _reader(self, file_id: str, uri: str) -> Callable[[], RawFile]:
        def read() -> RawFile:
            try:
                blob = self.blobs.get(self.tenant, file_id)
                if blob.size > self.max_file_mib << 20:
                    raise SourceUnreadable(
                        f"the file is larger than retrieval.load.max_file_mib "
                        f"({self.max_file_mib} MiB): split it"
                    )
                return RawFile(uri, b"".join(self.blobs.open(self.tenant, file_id)))
            except (NotFound, FileNotFoundError) as exc:
                raise SourceUnreadable(f"the file {file_id} is gone; upload it again") from exc

        return read


@dataclass
class _Coded:
    """A `Parser` that remembers why files were refused."""

    inner: Parser
    codes: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return self.inner.size

    def parse(self, raw: RawFile) -> Sequence[Document]:
        """See `Loader.load`."""
        try:
            return self.inner.parse(raw)
        except Unparsable as exc:
            self.codes[hashlib.sha256(raw.data).hexdigest()] = exc.code
            raise


def _outcome(
    library: Library,
    scope: Scope,
    ledger: Ledger,
    row: FileRow,
    codes: Mapping[str, str],
    splitter: Splitter,
) -> Indexed:
    if row.state == "failed":
        code = codes.get(row.sha256, "invalid_file")
        return Indexed(error_code=code, error_message=row.error)
    chunks = library.index.get(scope, ledger.chunk_ids(row.uri))
    if not chunks:
        return Indexed(error_code="invalid_file", error_message="no text was found in the file")
    vector = library.embedder.dimension * _FLOAT_BYTES
    used = sum(len(c.text.encode()) + (0 if c.is_parent else vector) for c in chunks)
    return Indexed(used, splitter.max_tokens)
