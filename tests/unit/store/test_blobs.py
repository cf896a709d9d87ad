"""Blobs: written whole, checked when read, invisible to other tenants."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from serving.store.audit import SYSTEM
from serving.store.blobs import BlobStore
from serving.store.database import Store
from serving.store.errors import Invalid, NotFound, StoreUnavailable
from serving.store.tenants import TenantStore


@pytest.fixture(params=["folder", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "folder":
        yield str(tmp_path / "blobs")
        return
    yield f"memory://{tmp_path.name}"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def blobs(store: Store, url: str) -> BlobStore:
    TenantStore(store).create("acme", SYSTEM)
    return BlobStore(store, url)


def files(blobs: BlobStore) -> list[str]:
    try:
        return sorted(blobs._files.find(blobs._root))
    except FileNotFoundError:
        return []


def test_what_is_put_is_got(blobs: BlobStore) -> None:
    parts = [b"a" * 3_000_000, b"", b"b"]
    blob = blobs.put("acme", parts, name="../../etc/passwd", purpose="batch")
    assert (blob.size, blob.name) == (3_000_001, "../../etc/passwd")
    assert b"".join(blobs.open("acme", blob.id)) == b"".join(parts)
    assert blobs.get("acme", blob.id) == blob
    (path,) = files(blobs)
    assert path.endswith(f"/acme/{blob.id[-2:]}/{blob.id}")


def test_another_tenant_finds_nothing(blobs: BlobStore) -> None:
    blob = blobs.put("acme", [b"x"], name="a", purpose="batch")
    for call in (blobs.get, blobs.delete, lambda t, i: next(blobs.open(t, i))):
        with pytest.raises(NotFound, match="no file"):
            call("default", blob.id)
    assert blobs.page("default") == []
    assert blobs.get("acme", blob.id)


@pytest.mark.parametrize("id", ["", "..", "file-", "file-../x", "file-" + "g" * 32, "\0"])
def test_what_is_no_id_is_not_found(blobs: BlobStore, id: str) -> None:
    with pytest.raises(NotFound):
        blobs.get("acme", id)


def test_one_that_is_too_large_or_breaks_off_leaves_nothing(blobs: BlobStore) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionResetError

    with pytest.raises(Invalid, match="larger than 3 bytes"):
        blobs.put("acme", [b"1234"], name="a", purpose="batch", max_bytes=3)
    with pytest.raises((ConnectionResetError, StoreUnavailable)):
        blobs.put("acme", broken(), name="a", purpose="batch")
    with pytest.raises(AssertionError):
        blobs.put("../acme", [b"x"], name="a", purpose="batch")
    assert files(blobs) == []
    assert blobs.page("acme") == []


def test_a_damaged_file_is_not_passed_off_as_whole(blobs: BlobStore) -> None:
    blob = blobs.put("acme", [b"right"], name="a", purpose="batch")
    with blobs._files.open(files(blobs)[0], "wb") as file:
        file.write(b"wrong")
    with pytest.raises(StoreUnavailable, match="checksum"):
        list(blobs.open("acme", blob.id))


def test_pages_and_deletion(blobs: BlobStore) -> None:
    made = [blobs.put("acme", [b"x"], name=str(n), purpose="a" if n else "b") for n in range(4)]
    first = blobs.page("acme", limit=2)
    rest = blobs.page("acme", after=first[-1].id)
    assert {b.id for b in first + rest} == {b.id for b in made}
    assert [b.name for b in blobs.page("acme", purpose="b")] == ["0"]
    blobs.delete("acme", made[0].id)
    with pytest.raises(NotFound):
        blobs.get("acme", made[0].id)
    assert len(files(blobs)) == 3


def test_an_unknown_kind_of_url_is_refused(store: Store) -> None:
    with pytest.raises(Invalid, match=r"store\.blobs"):
        BlobStore(store, "nonsense://x")
