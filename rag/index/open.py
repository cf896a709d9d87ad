"""Opens the index that the configuration names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from rag.index.config import IndexConfig
from rag.index.manifest import Manifest
from rag.index.portable import Stored
from rag.protocols import VectorIndex
from rag.types import Scalar, Scope

__all__ = ["StoredIndex", "open_index"]


class StoredIndex(VectorIndex, Protocol):
    """A `VectorIndex` and its upkeep."""

    @property
    def manifest(self) -> Manifest: ...

    def count(self, scope: Scope | None = None) -> int:
        """Chunks in the scope, parents included; of everyone without one."""
        ...

    def delete_store(self, scope: Scope) -> None:
        """Remove everything in the scope."""
        ...

    def set_metadata(self, scope: Scope, document_id: str, metadata: Mapping[str, Scalar]) -> None:
        """Replace the metadata of a document's chunks; their ids stay."""
        ...

    def export(self) -> Iterator[Stored]:
        """Everything, of everyone, for a snapshot."""
        ...

    def optimize(self) -> None:
        """Build the graph over what was added since it was last built."""
        ...

    def flush(self) -> None:
        """Bring everything to the disk."""
        ...

    def close(self) -> None: ...


def open_index(config: IndexConfig, manifest: Manifest, home: Path) -> StoredIndex:
    """The index of `config`, made if there is none; `home` is `$CORRAL_HOME`. Its engine is
    imported here. Raises rag.errors.IndexMismatch, rag.errors.IndexUnavailable."""
    if config.url is None:
        from rag.index.edge import EdgeIndex

        return EdgeIndex(home / config.path, config, manifest)
    from rag.index.server import ServerIndex

    return ServerIndex(config, manifest)
