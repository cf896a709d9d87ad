"""Chunks as Qdrant points. One field, `scope`, says whose a point is; its id follows from the scope
and the chunk's id, so no tenant can name, and thereby replace, another's point."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

from rag.types import Chunk, Scalar, Scope, Span

__all__ = [
    "DENSE",
    "SPARSE",
    "chunk_of",
    "flag_value",
    "metadata_path",
    "metadata_payload",
    "payload_of",
    "point_id",
    "scope_key",
    "scope_of",
]

DENSE = "dense"
SPARSE = "bm25"
_NAMESPACE = uuid.UUID("5f0a6c1e-0f6f-5b7e-9d3e-2f6f1f0c4f11")
_PLAIN_KEY = re.compile(r"(?!x_)[A-Za-z_][A-Za-z0-9_-]*\Z")


def scope_key(scope: Scope) -> str:
    """One string per scope; no two scopes share one."""
    return json.dumps([scope.tenant, scope.store], ensure_ascii=False, separators=(",", ":"))


def point_id(scope: Scope, chunk_id: str) -> str:
    """A UUID that only this scope has."""
    return str(uuid.uuid5(_NAMESPACE, f"{scope_key(scope)} {chunk_id}"))


def metadata_path(key: str, *, flag: bool = False) -> str:
    """Where a metadata key is stored: whatever it is, it stays one step below `meta`, or `flag`
    for a boolean (the embedded engine has no condition on booleans)."""
    return f"{'flag' if flag else 'meta'}.{_stored_key(key)}"


def flag_value(value: bool) -> str:
    """A boolean as it is stored."""
    return "true" if value else "false"


def payload_of(scope: Scope, chunk: Chunk) -> dict[str, Any]:
    """Everything but the vectors."""
    return {
        "scope": scope_key(scope),
        "tenant": scope.tenant,
        "store": scope.store,
        "chunk": chunk.id,
        "document": chunk.document_id,
        "parent": chunk.is_parent,
        "text": chunk.text,
        "start": chunk.span.start,
        "end": chunk.span.end,
        "position": chunk.position,
        "uri": chunk.uri,
        "title": chunk.title,
        "context": chunk.context,
        "headings": list(chunk.heading_path),
        "page": chunk.page,
        "parent_id": chunk.parent_id,
        **metadata_payload(chunk.metadata),
    }


def metadata_payload(metadata: Mapping[str, Scalar]) -> dict[str, Any]:
    """The fields of metadata: two to filter by, one that keeps keys and types as given."""
    flags = {key: value for key, value in metadata.items() if isinstance(value, bool)}
    return {
        "meta": {_stored_key(key): v for key, v in metadata.items() if key not in flags},
        "flag": {_stored_key(key): flag_value(value) for key, value in flags.items()},
        "metadata": json.dumps(dict(metadata), ensure_ascii=False),
    }


def chunk_of(payload: Mapping[str, Any]) -> Chunk:
    """The chunk that `payload_of` stored."""
    return Chunk(
        id=payload["chunk"],
        document_id=payload["document"],
        span=Span(payload["start"], payload["end"]),
        text=payload["text"],
        position=payload["position"],
        uri=payload["uri"],
        title=payload["title"],
        context=payload["context"],
        heading_path=tuple(payload["headings"]),
        page=payload["page"],
        parent_id=payload["parent_id"],
        is_parent=payload["parent"],
        metadata=json.loads(payload["metadata"]),
    )


def scope_of(payload: Mapping[str, Any]) -> Scope:
    """Whose point it is."""
    return Scope(payload["tenant"], payload["store"])


def _stored_key(key: str) -> str:
    return key if _PLAIN_KEY.match(key) else "x_" + key.encode("utf-8", "surrogatepass").hex()
