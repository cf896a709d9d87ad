"""A Qdrant server, by URL. The one file that imports qdrant_client."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import httpx
import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException

from rag.errors import IndexMismatch, IndexUnavailable
from rag.index import points as layout
from rag.index.config import IndexConfig
from rag.index.filters import translate
from rag.index.manifest import Manifest
from rag.index.points import DENSE, SPARSE
from rag.index.portable import Stored
from rag.index.sparse import Sparse, SparseEncoder
from rag.types import Chunk, Filter, Hit, Query, Scalar, Scope, Vectors

__all__ = ["ServerIndex"]

_PAGE = 256
_SCHEMA = {
    "keyword": models.PayloadSchemaType.KEYWORD,
    "integer": models.PayloadSchemaType.INTEGER,
    "float": models.PayloadSchemaType.FLOAT,
    "bool": models.PayloadSchemaType.KEYWORD,
}


class ServerIndex:
    """A collection on a Qdrant server as a `VectorIndex`. The manifest is the collection's
    metadata."""

    def __init__(
        self, config: IndexConfig, manifest: Manifest, client: QdrantClient | None = None
    ) -> None:
        """Open the collection, or make it. Without a `client`, connect to `config.url`. Raises
        IndexMismatch, IndexUnavailable."""
        self._config = config
        self._name = config.collection
        self._where = f"Qdrant at {config.url}" if client is None else "Qdrant"
        with self._translated():
            self._client = client or QdrantClient(
                url=config.url,
                api_key=os.environ.get(config.api_key_env),
                timeout=config.timeout_s,
                check_compatibility=False,
            )
            self.manifest = self._claim(manifest)
        self._sparse = SparseEncoder(self.manifest.bm25)

    def upsert(self, scope: Scope, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        rows = iter(vectors)
        points = [self._point(scope, c, None if c.is_parent else next(rows)) for c in chunks]
        if next(rows, None) is not None:
            raise ValueError("there are more vectors than chunks that are not parents")
        with self._translated():
            for at in range(0, len(points), _PAGE):
                self._client.upsert(self._name, points[at : at + _PAGE], wait=True)

    def delete(self, scope: Scope, chunk_ids: Collection[str]) -> None:
        if chunk_ids:
            ids: list[Any] = [layout.point_id(scope, chunk) for chunk in chunk_ids]
            with self._translated():
                self._client.delete(self._name, models.PointIdsList(points=ids), wait=True)

    def delete_store(self, scope: Scope) -> None:
        """Remove everything in the scope."""
        selector = models.FilterSelector(filter=_scoped(scope))
        with self._translated():
            self._client.delete(self._name, selector, wait=True)

    def set_metadata(self, scope: Scope, document_id: str, metadata: Mapping[str, Scalar]) -> None:
        """Replace the metadata of a document's chunks; their ids stay."""
        of_document = _scoped(scope, _ClientDialect().equals("document", document_id))
        payload = layout.metadata_payload(metadata)
        with self._translated():
            self._client.set_payload(
                self._name, payload, models.FilterSelector(filter=of_document), wait=True
            )

    def search(self, scope: Scope, query: Query) -> list[Hit]:
        if query.limit < 1:
            return []
        mine = _scoped(scope)
        nearest: Any
        if query.vector is not None:
            nearest, using = query.vector.tolist(), DENSE
            params = models.SearchParams(
                hnsw_ef=max(self._config.hnsw.ef, query.limit),
                exact=query.exact,
                quantization=_rescoring(self._config),
            )
        else:
            nearest, using = _client_sparse(self._sparse.query(query.text or "")), SPARSE
            params = models.SearchParams(idf=models.IdfCorpusParams(corpus=mine))
        with self._translated():
            found = self._client.query_points(
                self._name, query=nearest, using=using, limit=query.limit,
                query_filter=_scoped(scope, *_conditions(query.filter)), search_params=params,
                with_payload=True, with_vectors=[DENSE] if query.with_vectors else False,
            )  # fmt: skip
        return [
            Hit(layout.chunk_of(point.payload or {}), point.score, _dense(point.vector))
            for point in found.points
        ]

    def get(self, scope: Scope, chunk_ids: Sequence[str]) -> list[Chunk]:
        ids: list[Any] = [layout.point_id(scope, chunk) for chunk in chunk_ids]
        with self._translated():
            records = self._client.retrieve(self._name, ids, with_payload=True)
        found = {str(record.id): layout.chunk_of(record.payload or {}) for record in records}
        return [found[id] for id in ids if id in found]

    def ids(self, scope: Scope) -> Iterator[str]:
        for record in self._scroll(_scoped(scope), ["chunk"], with_vectors=False):
            yield (record.payload or {})["chunk"]

    def count(self, scope: Scope | None = None) -> int:
        """Chunks in the scope, parents included; of everyone without one."""
        wanted = None if scope is None else _scoped(scope)
        with self._translated():
            return self._client.count(self._name, count_filter=wanted, exact=True).count

    def export(self) -> Iterator[Stored]:
        """Everything, of everyone, for a snapshot. Let nobody write meanwhile."""
        for record in self._scroll(None, True, with_vectors=[DENSE]):
            payload = record.payload or {}
            chunk = layout.chunk_of(payload)
            yield Stored(layout.scope_of(payload), chunk, _dense(record.vector))

    def optimize(self) -> None:
        """The server sees to its graph by itself."""

    def flush(self) -> None:
        """Every write was waited for."""

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _claim(self, wanted: Manifest) -> Manifest:
        if not self._client.collection_exists(self._name):
            self._create(wanted)
            return wanted
        metadata = self._client.get_collection(self._name).config.metadata or {}
        if "corral" not in metadata:
            raise IndexMismatch(
                f"the collection {self._name!r} on {self._where} was not made by corral: choose "
                "another name (`index.collection`)"
            )
        manifest = Manifest.model_validate(metadata["corral"])
        manifest.check(wanted, f"the collection {self._name!r} on {self._where}")
        return manifest

    def _create(self, manifest: Manifest) -> None:
        hnsw = self._config.hnsw
        size = manifest.dimension
        self._client.create_collection(
            self._name,
            vectors_config={DENSE: models.VectorParams(size=size, distance=models.Distance.COSINE)},
            sparse_vectors_config={SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)},
            hnsw_config=models.HnswConfigDiff(
                m=hnsw.m, ef_construct=hnsw.ef_construct, full_scan_threshold=hnsw.exact_below_kib
            ),
            quantization_config=_quantization(self._config),
            metadata={"corral": manifest.model_dump(mode="json")},
        )
        self._index_field("scope", models.KeywordIndexParams(type="keyword", is_tenant=True))
        self._index_field("document", models.PayloadSchemaType.KEYWORD)
        for key, kind in self._config.metadata_indexes.items():
            self._index_field(layout.metadata_path(key, flag=kind == "bool"), _SCHEMA[kind])

    def _index_field(self, field: str, schema: Any) -> None:
        self._client.create_payload_index(self._name, field, schema, wait=True)

    def _point(self, scope: Scope, chunk: Chunk, vector: Any) -> models.PointStruct:
        vectors: dict[str, Any] = {}
        if not chunk.is_parent:
            vectors[DENSE] = vector.tolist()
            vectors[SPARSE] = _client_sparse(self._sparse.document(chunk.embedded))
        return models.PointStruct(
            id=layout.point_id(scope, chunk.id),
            vector=vectors,
            payload=layout.payload_of(scope, chunk),
        )

    def _scroll(
        self, filter: models.Filter | None, with_payload: Any, *, with_vectors: Any
    ) -> Iterator[models.Record]:
        offset: Any = None
        while True:
            with self._translated():
                records, offset = self._client.scroll(
                    self._name, scroll_filter=filter, limit=_PAGE, offset=offset,
                    with_payload=with_payload, with_vectors=with_vectors,
                )  # fmt: skip
            yield from records
            if offset is None:
                return

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (ApiException, ResponseHandlingException, QdrantException, httpx.HTTPError) as exc:
            raise IndexUnavailable(
                f"{self._where} did not do what was asked: {exc}. Is it running, and is "
                f"${self._config.api_key_env} its key?"
            ) from exc


class _ClientDialect:
    """Conditions by the client's classes."""

    def equals(self, path: str, value: str) -> Any:
        return models.FieldCondition(key=path, match=models.MatchValue(value=value))

    def within(self, path: str, **bounds: float) -> Any:
        return models.FieldCondition(key=path, range=models.Range(**bounds))

    def combine(
        self, *, must: Sequence[Any] = (), should: Sequence[Any] = (), must_not: Sequence[Any] = ()
    ) -> Any:
        return models.Filter(
            must=list(must) or None, should=list(should) or None, must_not=list(must_not) or None
        )


def _scoped(scope: Scope, *conditions: Any) -> models.Filter:
    """`conditions`, of this scope's points alone: the scope is a `must` at the top, where nothing
    inside a condition can undo it."""
    dialect = _ClientDialect()
    mine = dialect.equals("scope", layout.scope_key(scope))
    made: models.Filter = dialect.combine(must=[mine, *conditions])
    return made


def _conditions(filter: Filter | None) -> list[Any]:
    return [] if filter is None else [translate(filter, _ClientDialect())]


def _client_sparse(sparse: Sparse) -> models.SparseVector:
    return models.SparseVector(indices=sparse.indices, values=sparse.values)


def _dense(vector: Any) -> Any:
    return np.asarray(vector[DENSE], np.float32) if vector and DENSE in vector else None


def _quantization(config: IndexConfig) -> Any:
    match config.quantization:
        case "none":
            return None
        case "int8":
            return models.ScalarQuantization(
                scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99)
            )
        case "binary":
            return models.BinaryQuantization(binary=models.BinaryQuantizationConfig())


def _rescoring(config: IndexConfig) -> models.QuantizationSearchParams | None:
    if config.quantization == "none":
        return None
    return models.QuantizationSearchParams(rescore=True, oversampling=config.oversampling)
