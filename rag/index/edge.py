"""Qdrant's engine in this process: HNSW, sparse vectors, payload indexes and a write-ahead log in
one folder. One process at a time has it open. One of the two files that import qdrant_edge.

    PATH/manifest.json      what it was made with
    PATH/current.json       which shard is live, and how many points its graph holds
    PATH/shard-000001/      the engine's own files
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qe

from rag.errors import IndexUnavailable
from rag.index import points as layout
from rag.index.config import IndexConfig
from rag.index.edge_files import EdgeFiles
from rag.index.edge_optimize import Optimizer
from rag.index.filters import translate
from rag.index.manifest import Manifest
from rag.index.points import DENSE, SPARSE
from rag.index.portable import Stored
from rag.index.sparse import Sparse, SparseEncoder
from rag.types import Chunk, Filter, Hit, Query, Scalar, Scope, Vectors

__all__ = ["EdgeIndex"]

_PAGE = 1_000
_SCHEMA = {
    "keyword": qe.PayloadSchemaType.Keyword,
    "integer": qe.PayloadSchemaType.Integer,
    "float": qe.PayloadSchemaType.Float,
    "bool": qe.PayloadSchemaType.Keyword,
}


class EdgeIndex:
    """The embedded engine as a `VectorIndex`."""

    def __init__(self, path: Path, config: IndexConfig, manifest: Manifest) -> None:
        """Open the index at `path`, or make it. Raises IndexMismatch, IndexUnavailable."""
        self.path = path
        self._config = config
        self._files = EdgeFiles(path)
        try:
            self.manifest = self._files.claim(manifest)
            self._sparse = SparseEncoder(self.manifest.bm25)
            self._shard = self._open()
        except BaseException:
            self._files.release()
            raise
        self._writing = threading.RLock()
        self._journal: list[qe.UpdateOperation] | None = None
        self._optimizer = Optimizer(self)

    def upsert(self, scope: Scope, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        rows = iter(vectors)
        points = [self._point(scope, c, None if c.is_parent else next(rows)) for c in chunks]
        if next(rows, None) is not None:
            raise ValueError("there are more vectors than chunks that are not parents")
        for at in range(0, len(points), _PAGE):
            self._apply(qe.UpdateOperation.upsert_points(points[at : at + _PAGE]))
        self._optimizer.consider()

    def delete(self, scope: Scope, chunk_ids: Collection[str]) -> None:
        if chunk_ids:
            ids: list[qe.PointId] = [layout.point_id(scope, chunk) for chunk in chunk_ids]
            self._apply(qe.UpdateOperation.delete_points(ids))

    def delete_store(self, scope: Scope) -> None:
        """Remove everything in the scope."""
        self._apply(qe.UpdateOperation.delete_points_by_filter(_scoped(scope)))

    def set_metadata(self, scope: Scope, document_id: str, metadata: Mapping[str, Scalar]) -> None:
        """Replace the metadata of a document's chunks; their ids stay."""
        of_document = _scoped(scope, _EdgeDialect().equals("document", document_id))
        payload = layout.metadata_payload(metadata)
        self._apply(qe.UpdateOperation.set_payload_by_filter(of_document, payload))

    def search(self, scope: Scope, query: Query) -> list[Hit]:
        if query.limit < 1:
            return []
        request = self._request(scope, query)
        with _translated(self.path):
            found = self._shard.query(request)
        return [_hit(point.payload or {}, point.score, point.vector) for point in found]

    def get(self, scope: Scope, chunk_ids: Sequence[str]) -> list[Chunk]:
        ids: list[qe.PointId] = [layout.point_id(scope, chunk) for chunk in chunk_ids]
        with _translated(self.path):
            records = self._shard.retrieve(ids, with_payload=True, with_vector=False)
        found = {str(record.id): layout.chunk_of(record.payload or {}) for record in records}
        return [found[str(id)] for id in ids if str(id) in found]

    def ids(self, scope: Scope) -> Iterator[str]:
        include = qe.PayloadSelector.Include(["chunk"])
        for record in self._scroll(_scoped(scope), include, with_vector=False):
            yield (record.payload or {})["chunk"]

    def count(self, scope: Scope | None = None) -> int:
        """Chunks in the scope, parents included; of everyone without one."""
        with _translated(self.path):
            return self._shard.count(
                qe.CountRequest(filter=None if scope is None else _scoped(scope))
            )

    def export(self) -> Iterator[Stored]:
        """Everything, of everyone, for a snapshot. Writers wait meanwhile."""
        with self._writing:
            for record in self._scroll(None, True, with_vector=[DENSE]):
                payload = record.payload or {}
                chunk = layout.chunk_of(payload)
                yield Stored(layout.scope_of(payload), chunk, _dense(record.vector))

    def optimize(self) -> None:
        """Build the graph over what was added since it was last built. Searches and writes go on
        meanwhile: the work is a child process's, on a copy."""
        self._optimizer.run()

    def flush(self) -> None:
        """Bring everything to the disk: what is acknowledged survives a kill without it, and the
        loss of power with it."""
        with self._writing, _translated(self.path):
            self._shard.flush()

    def close(self) -> None:
        """Let go of the folder. Harmless when repeated."""
        self._optimizer.stop()
        with self._writing:
            if self._files.held:
                self._shard.close()
            self._files.release()

    @property
    def outside_graph(self) -> int:
        """Points added since the graph was last built."""
        return max(0, self.count() - self._files.indexed)

    @contextlib.contextmanager
    def copied(self, target: Path) -> Iterator[None]:
        """Copy the live shard to `target` and keep a journal of writes until the block ends."""
        with self._writing, _translated(self.path):
            self._shard.flush()
            self._files.copy_shard(target)
            self._journal = []
        try:
            yield
        finally:
            with self._writing:
                self._journal = None

    def adopt(self, target: Path) -> None:
        """Inside `copied`: bring the copy up to date and make it the live one."""
        with self._writing, _translated(self.path):
            shard = qe.EdgeShard.load(str(target))
            indexed = shard.count(qe.CountRequest())
            for operation in self._journal or ():
                shard.update(operation)
            shard.flush()
            # A search may still be using the old shard: it closes when the last one lets go.
            self._shard = shard
            self._files.make_live(target, indexed)

    def _open(self) -> qe.EdgeShard:
        live = self._files.shard
        with _translated(self.path):
            if live.exists():
                return qe.EdgeShard.load(str(live), self._engine_config())
            live.mkdir(parents=True)
            shard = qe.EdgeShard.create(str(live), self._engine_config())
            tenant = qe.KeywordIndexParams(is_tenant=True)
            shard.update(qe.UpdateOperation.create_field_index("scope", tenant))
            keyword = qe.PayloadSchemaType.Keyword
            shard.update(qe.UpdateOperation.create_field_index("document", keyword))
            for key, kind in self._config.metadata_indexes.items():
                field = layout.metadata_path(key, flag=kind == "bool")
                shard.update(qe.UpdateOperation.create_field_index(field, _SCHEMA[kind]))
            return shard

    def _engine_config(self) -> qe.EdgeConfig:
        hnsw = self._config.hnsw
        size = self.manifest.dimension
        return qe.EdgeConfig(
            vectors={DENSE: qe.EdgeVectorParams(size, qe.Distance.Cosine)},
            sparse_vectors={SPARSE: qe.EdgeSparseVectorParams(modifier=qe.Modifier.Idf)},
            hnsw_config=qe.HnswIndexConfig(hnsw.m, hnsw.ef_construct, hnsw.exact_below_kib),
            quantization_config=_quantization(self._config),
            optimizers=qe.EdgeOptimizersConfig(indexing_threshold=1_000, default_segment_number=1),
        )

    def _point(self, scope: Scope, chunk: Chunk, vector: Any) -> qe.Point:
        vectors: dict[str, Any] = {}
        if not chunk.is_parent:
            vectors[DENSE] = vector.tolist()
            vectors[SPARSE] = _edge_sparse(self._sparse.document(chunk.embedded))
        return qe.Point(layout.point_id(scope, chunk.id), vectors, layout.payload_of(scope, chunk))

    def _apply(self, operation: qe.UpdateOperation) -> None:
        with self._writing, _translated(self.path):
            self._shard.update(operation)
            if self._journal is not None:
                self._journal.append(operation)

    def _request(self, scope: Scope, query: Query) -> qe.QueryRequest:
        mine = _scoped(scope)
        wanted = _scoped(scope, *_conditions(query.filter))
        if query.vector is not None:
            nearest = qe.Query.Nearest(query.vector.tolist(), using=DENSE)
            params = qe.SearchParams(
                hnsw_ef=max(self._config.hnsw.ef, query.limit),
                exact=query.exact,
                quantization=_rescoring(self._config),
            )
        else:
            sparse = _edge_sparse(self._sparse.query(query.text or ""))
            nearest = qe.Query.Nearest(sparse, using=SPARSE)
            params = qe.SearchParams(idf=qe.IdfParams(mine))
        return qe.QueryRequest(
            limit=query.limit, query=nearest, filter=wanted, params=params, with_payload=True,
            with_vector=[DENSE] if query.with_vectors else False,
        )  # fmt: skip

    def _scroll(
        self, filter: qe.Filter | None, with_payload: Any, *, with_vector: Any
    ) -> Iterator[qe.Record]:
        offset: qe.PointId | None = None
        while True:
            request = qe.ScrollRequest(
                offset=offset, limit=_PAGE, filter=filter, with_payload=with_payload,
                with_vector=with_vector,
            )  # fmt: skip
            with _translated(self.path):
                records, offset = self._shard.scroll(request)
            yield from records
            if offset is None:
                return


class _EdgeDialect:
    """Conditions by the engine's classes."""

    def equals(self, path: str, value: str) -> Any:
        return qe.FieldCondition(path, match=qe.MatchValue(value))

    def within(self, path: str, **bounds: float) -> Any:
        return qe.FieldCondition(path, range=qe.RangeFloat(**bounds))

    def combine(
        self, *, must: Sequence[Any] = (), should: Sequence[Any] = (), must_not: Sequence[Any] = ()
    ) -> Any:
        return qe.Filter(
            must=list(must) or None, should=list(should) or None, must_not=list(must_not) or None
        )


def _scoped(scope: Scope, *conditions: Any) -> qe.Filter:
    """`conditions`, of this scope's points alone: the scope is a `must` at the top, where nothing
    inside a condition can undo it."""
    dialect = _EdgeDialect()
    mine = dialect.equals("scope", layout.scope_key(scope))
    made: qe.Filter = dialect.combine(must=[mine, *conditions])
    return made


def _conditions(filter: Filter | None) -> list[Any]:
    return [] if filter is None else [translate(filter, _EdgeDialect())]


def _edge_sparse(sparse: Sparse) -> qe.SparseVector:
    return qe.SparseVector(sparse.indices, sparse.values)


def _hit(payload: Mapping[str, Any], score: float, vector: Any) -> Hit:
    return Hit(layout.chunk_of(payload), score, _dense(vector))


def _dense(vector: Any) -> Any:
    return np.asarray(vector[DENSE], np.float32) if vector and DENSE in vector else None


def _quantization(config: IndexConfig) -> qe.QuantizationConfigType | None:
    match config.quantization:
        case "none":
            return None
        case "int8":
            return qe.ScalarQuantizationConfig(qe.ScalarType.Int8, quantile=0.99)
        case "binary":
            return qe.BinaryQuantizationConfig()


def _rescoring(config: IndexConfig) -> qe.QuantizationSearchParams | None:
    if config.quantization == "none":
        return None
    return qe.QuantizationSearchParams(rescore=True, oversampling=config.oversampling)


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except IndexUnavailable:
        raise
    except Exception as exc:  # the engine raises bare Exception, whatever the cause
        raise IndexUnavailable(
            f"the index at {path} refused: {exc}. If it was damaged, restore a snapshot "
            "(`python -m rag restore`) or ingest anew"
        ) from exc
