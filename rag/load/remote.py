"""Object stores and other file systems by URL, through fsspec: `s3://bucket/docs/`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from rag.errors import MissingExtra, Refused, SourceUnreadable
from rag.load.config import LoadConfig
from rag.load.detect import EXTENSIONS
from rag.load.source import Entry
from rag.protocols import RawFile

__all__ = ["RemoteSource"]


class RemoteSource:
    """Implements `Source`. One object, everything below a prefix, or a glob."""

    def __init__(self, url: str, config: LoadConfig) -> None:
        self._url, self._config = url, config
        scheme = url.partition("://")[0]
        if "::" in url or scheme not in config.schemes:
            raise Refused(
                f"{url} is not of a scheme that may be read: load.schemes has "
                f"{', '.join(config.schemes)}"
            )

    @property
    def uri(self) -> str:
        return self._url

    def entries(self) -> Iterator[Entry]:
        """See `Source.entries`."""
        system, path = self._open()
        try:
            found = self._listed(system, path)
        except Exception as exc:  # each file system raises errors of its own
            raise SourceUnreadable(f"cannot list {self._url}: {exc}") from exc
        if not found:
            raise SourceUnreadable(f"there is nothing at {self._url}")
        for name in sorted(found):
            uri = str(system.unstrip_protocol(name))
            size = int(found[name].get("size") or 0)
            yield Entry(uri, partial(self._read, system, name, uri, size), size)

    def _listed(self, system: Any, path: str) -> dict[str, dict[str, Any]]:
        if any(sign in path for sign in "*?["):
            found = dict(system.glob(path, detail=True))
        elif system.isfile(path):
            return {path: dict(system.info(path))}
        else:
            found = dict(system.find(path, detail=True))
        return {
            name: info
            for name, info in found.items()
            if info.get("type", "file") == "file" and name.lower().rpartition(".")[2] in EXTENSIONS
        }

    def _open(self) -> tuple[Any, str]:
        import fsspec

        try:
            return fsspec.core.url_to_fs(self._url)  # type: ignore[no-any-return]
        except ImportError as exc:
            raise MissingExtra(f"{self._url} needs another package: {exc}") from exc
        except Exception as exc:
            raise SourceUnreadable(f"cannot open {self._url}: {exc}") from exc

    def _read(self, system: Any, path: str, uri: str, size: int) -> RawFile:
        most = self._config.max_file_mib << 20
        if size > most:
            raise Refused(f"{uri} has more than {most >> 20} MiB: raise load.max_file_mib")
        try:
            with system.open(path, "rb") as file:
                data: bytes = file.read(most + 1)
        except Exception as exc:
            raise SourceUnreadable(f"cannot read {uri}: {exc}") from exc
        if len(data) > most:
            raise Refused(f"{uri} has more than {most >> 20} MiB: raise load.max_file_mib")
        return RawFile(uri, data)
