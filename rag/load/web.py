"""One web page."""

from __future__ import annotations

from collections.abc import Iterator

from rag.load.config import LoadConfig
from rag.load.fetch import fetch
from rag.load.source import Entry
from rag.protocols import RawFile

__all__ = ["WebSource"]


class WebSource:
    """Implements `Source`."""

    def __init__(self, url: str, config: LoadConfig) -> None:
        self._url, self._config = url.partition("#")[0], config

    @property
    def uri(self) -> str:
        return self._url

    def entries(self) -> Iterator[Entry]:
        """See `Source.entries`: the page itself."""
        yield Entry(self._url, self._read)

    def _read(self) -> RawFile:
        found = fetch(self._url, self._config.web)
        return RawFile(self._url, found.data, found.media_type)
