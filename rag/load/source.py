"""Where documents come from: a `Source` lists entries, an entry reads its bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from rag.load.config import LoadConfig
from rag.protocols import RawFile
from rag.types import Scalar

__all__ = ["Entry", "Source", "open_source"]


@dataclass(frozen=True)
class Entry:
    """One file that a source offers."""

    uri: str
    read: Callable[[], RawFile]
    """Its bytes. Raises rag.errors.SourceUnreadable and rag.errors.Refused."""
    size: int = 0
    """Bytes, where the listing says; for progress only."""
    metadata: Mapping[str, Scalar] = field(default_factory=dict)


class Source(Protocol):
    """A folder, a glob, a bucket, a page, a wiki's space."""

    @property
    def uri(self) -> str:
        """Names it in the ledger: files that it no longer lists are then removed."""
        ...

    def entries(self) -> Iterator[Entry]:
        """Everything it has, in a stable order. Raises rag.errors.SourceUnreadable if the
        listing is not complete: what was not listed would else seem to be deleted."""
        ...


def open_source(path: str, config: LoadConfig) -> Source:
    """The source that `path` names: a file, folder or glob, `http(s)://` a page,
    `confluence+https://HOST/wiki?space=KEY` a space, any other `scheme://` an fsspec URL."""
    scheme = path.partition("://")[0].lower() if "://" in path else ""
    if scheme in ("http", "https"):
        from rag.load.web import WebSource

        return WebSource(path, config)
    if scheme in ("confluence+http", "confluence+https"):
        from rag.load.confluence import ConfluenceSource

        return ConfluenceSource(path, config)
    if scheme and scheme != "file":
        from rag.load.remote import RemoteSource

        return RemoteSource(path, config)
    from rag.load.folder import FolderSource

    return FolderSource(path.removeprefix("file://"), config)
