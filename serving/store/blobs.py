"""Files of tenants: bytes behind `fsspec`, what is known of them in the store.

Where a blob lies follows from its tenant and its random id alone, never from a name that
a user chose. It is written whole under another name and moved, or not there at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, delete, func, insert, or_, select

from serving.store.database import Store
from serving.store.errors import Invalid, NotFound, StoreUnavailable
from serving.store.secret import new_id
from serving.store.tables import blobs

CHUNK_BYTES = 1 << 20
_MANY = 500
"""Values in one IN clause."""
_ID = re.compile(r"file-[0-9a-f]{32}")


@dataclass(frozen=True)
class Blob:
    """What is known of a file. `name` is what its owner calls it and is only ever shown."""

    id: str
    tenant_id: str
    name: str
    media_type: str
    purpose: str
    size: int
    sha256: str
    created_us: int
    expires_us: int | None = None
    """When it ends by itself; None is never. From then on it is not found."""


class BlobStore:
    """The blobs of all tenants. Every call names the tenant, and sees no other's."""

    def __init__(self, store: Store, url: str) -> None:
        import fsspec  # here, since most gateways start without a blob being asked for

        self._store = store
        try:
            self._files, root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as exc:
            raise Invalid(f"store.blobs: {url!r} cannot be used: {exc}") from exc
        self._root = str(root).rstrip("/")

    def put(
        self,
        tenant_id: str,
        chunks: Iterable[bytes],
        *,
        name: str,
        purpose: str,
        media_type: str = "application/octet-stream",
        max_bytes: int | None = None,
        lives_s: float | None = None,
    ) -> Blob:
        """Store what `chunks` yields. Raises Invalid beyond `max_bytes`, StoreUnavailable.

        An exception, also one out of `chunks`, leaves nothing behind.
        """
        id = "file-" + new_id("").lstrip("_")
        path = self._path(tenant_id, id)
        try:
            size, sha256 = self._write(path, chunks, max_bytes)
            now = self._store.now_us()
            blob = Blob(
                id=id,
                tenant_id=tenant_id,
                name=name.replace("\0", "")[:512],
                media_type=media_type[:128],
                purpose=purpose[:64],
                size=size,
                sha256=sha256,
                created_us=now,
                expires_us=None if lives_s is None else now + int(lives_s * 1e6),
            )
            with self._store.write() as connection:
                connection.execute(insert(blobs).values(**vars(blob)))
        except BaseException:
            for leftover in (f"{path}.partial", path):
                with contextlib.suppress(Exception):
                    self._files.rm_file(leftover)
            raise
        return blob

    def _write(self, path: str, chunks: Iterable[bytes], max_bytes: int | None) -> tuple[int, str]:
        """Write beside `path`, then move there; size and SHA-256."""
        digest, size = hashlib.sha256(), 0
        with self._translated():
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            with self._files.open(f"{path}.partial", "wb") as file:
                for chunk in chunks:
                    size += len(chunk)
                    if max_bytes is not None and size > max_bytes:
                        raise Invalid(f"the file is larger than {max_bytes} bytes")
                    digest.update(chunk)
                    file.write(chunk)
            self._files.mv(f"{path}.partial", path)
        return size, digest.hexdigest()

    def get(self, tenant_id: str, id: str) -> Blob:
        """Raises NotFound, also for the blob of another tenant."""
        query = select(blobs).where(blobs.c.id == id, blobs.c.tenant_id == tenant_id, self._lives())
        row = None
        if _ID.fullmatch(id):
            with self._store.read() as connection:
                row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound(f"no file {id[:64]!r}")
        return Blob(**row._mapping)

    def named(self, tenant_id: str, ids: Sequence[str]) -> dict[str, Blob]:
        """Those of the ids that are there, by id."""
        found: dict[str, Blob] = {}
        mine = select(blobs).where(blobs.c.tenant_id == tenant_id, self._lives())
        with self._store.read() as connection:
            for at in range(0, len(ids), _MANY):
                query = mine.where(blobs.c.id.in_(ids[at : at + _MANY]))
                found |= {row.id: Blob(**row._mapping) for row in connection.execute(query)}
        return found

    def open(self, tenant_id: str, id: str) -> Iterator[bytes]:
        """The content, piece by piece. Raises NotFound at the first piece, StoreUnavailable
        when the bytes are not those that were stored."""
        blob = self.get(tenant_id, id)
        digest = hashlib.sha256()
        with self._translated(), self._files.open(self._path(tenant_id, id), "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                yield chunk
        if digest.hexdigest() != blob.sha256:
            raise StoreUnavailable(f"file {id} is damaged: its checksum differs; restore a backup")

    def page(
        self, tenant_id: str, *, purpose: str | None = None, after: str | None = None,
        limit: int = 100, oldest_first: bool = False,
    ) -> list[Blob]:  # fmt: skip
        """A tenant's blobs, newest first unless told otherwise, of ids beyond `after`."""
        query = select(blobs).where(blobs.c.tenant_id == tenant_id, self._lives())
        if purpose is not None:
            query = query.where(blobs.c.purpose == purpose)
        if after is not None:
            query = query.where(blobs.c.id > after if oldest_first else blobs.c.id < after)
        order = blobs.c.id.asc() if oldest_first else blobs.c.id.desc()
        with self._store.read() as connection:
            rows = connection.execute(query.order_by(order).limit(limit))
            return [Blob(**row._mapping) for row in rows]

    def held_bytes(self, tenant_id: str) -> int:
        """What a tenant's blobs take together."""
        query = select(func.coalesce(func.sum(blobs.c.size), 0))
        with self._store.read() as connection:
            return int(connection.execute(query.where(blobs.c.tenant_id == tenant_id)).scalar_one())

    def sweep(self, limit: int = 100) -> int:
        """Remove what has expired, at most so many at a time; how many were."""
        query = select(blobs.c.tenant_id, blobs.c.id).where(~self._lives()).limit(limit)
        with self._store.read() as connection:
            found = list(connection.execute(query))
        for tenant_id, id in found:
            self._remove(tenant_id, id)
        return len(found)

    def delete(self, tenant_id: str, id: str) -> None:
        """Forget it, then remove its bytes. Raises NotFound."""
        self.get(tenant_id, id)
        self._remove(tenant_id, id)

    def _remove(self, tenant_id: str, id: str) -> None:
        with self._store.write() as connection:
            connection.execute(
                delete(blobs).where(blobs.c.id == id, blobs.c.tenant_id == tenant_id)
            )
        with contextlib.suppress(FileNotFoundError), self._translated():
            self._files.rm_file(self._path(tenant_id, id))

    def put_back(self, tenant_id: str, id: str, data: bytes) -> None:
        """Write the bytes of a blob that the store knows of, as a restore does. Raises NotFound."""
        self.get(tenant_id, id)
        path = self._path(tenant_id, id)
        with self._translated():
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(path, data)

    def _lives(self) -> ColumnElement[bool]:
        return or_(blobs.c.expires_us.is_(None), blobs.c.expires_us > self._store.now_us())

    def _path(self, tenant_id: str, id: str) -> str:
        assert _ID.fullmatch(id), id
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", tenant_id), tenant_id
        return f"{self._root}/{tenant_id}/{id[-2:]}/{id}"

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as exc:
            raise StoreUnavailable(f"the blobs at {self._root} cannot be used: {exc}") from exc

    def paths(self) -> Iterator[tuple[Blob, str]]:
        """Every blob with where it lies, for backups."""
        with self._store.read() as connection:
            rows: list[Any] = list(connection.execute(select(blobs).order_by(blobs.c.id)))
        for row in rows:
            blob = Blob(**row._mapping)
            yield blob, self._path(blob.tenant_id, blob.id)
