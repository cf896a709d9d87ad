"""`/v1/files`: through the `openai` client, and from those who mean no good."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from openai import APIStatusError, BadRequestError, NotFoundError
from openai.types import FilePurpose

from serving.store.blobs import BlobStore
from tests.unit.finetuning.site import Works, rows, works


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Works]:
    async with works(tmp_path_factory.mktemp("files")) as made:
        yield made


shared = pytest.mark.asyncio(loop_scope="module")


@shared
async def test_every_call_of_the_client(running: Works) -> None:
    client = running.client("caller")
    purposes: tuple[FilePurpose, ...] = ("fine-tune", "batch", "fine-tune")
    made = [
        await client.files.create(file=(f"{n}.jsonl", rows(n + 1)), purpose=purpose)
        for n, purpose in enumerate(purposes)
    ]
    assert made[0].to_dict() == {
        "id": made[0].id, "object": "file", "bytes": len(rows(1)), "filename": "0.jsonl",
        "purpose": "fine-tune", "status": "processed", "created_at": made[0].created_at,
        "expires_at": None, "status_details": None,
    }  # fmt: skip
    assert (await client.files.retrieve(made[1].id)) == made[1]
    assert (await client.files.content(made[2].id)).content == rows(3)
    ids = [file.id for file in made]
    assert [f.id async for f in client.files.list(limit=1)] == ids[::-1]
    assert [f.id async for f in client.files.list(limit=2, order="asc")] == ids
    assert [f.id async for f in client.files.list(purpose="batch")] == ids[1:2]
    page = await client.files.list(limit=2, after=ids[2])
    assert ([f.id for f in page.data], page.has_more) == ([ids[1], ids[0]], False)
    deleted = await client.files.delete(ids[0])
    assert (deleted.id, deleted.deleted, deleted.object) == (ids[0], True, "file")
    for call in (client.files.retrieve, client.files.delete, client.files.content):
        with pytest.raises(NotFoundError):
            await call(ids[0])


@shared
async def test_another_tenant_sees_nothing(running: Works) -> None:
    ours, theirs = running.client("ours"), running.client("theirs")
    file = await ours.files.create(file=("secret.jsonl", rows()), purpose="fine-tune")
    assert [f.id async for f in theirs.files.list()] == []
    for call in (theirs.files.retrieve, theirs.files.delete, theirs.files.content):
        with pytest.raises(NotFoundError) as caught:
            await call(file.id)
        assert "secret" not in caught.value.message
    with pytest.raises(BadRequestError, match="no file"):
        await theirs.fine_tuning.jobs.create(model="fake", training_file=file.id)
    assert (await ours.files.content(file.id)).content == rows()


@shared
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\windows\\system32", "system32"),
        ("/", "file"),
        ("..", "file"),
        ("a\x01\x7fb\u202e.jsonl", "ab.jsonl"),
        ("n" * 300, "n" * 255),
    ],
)
async def test_names_are_only_shown(running: Works, name: str, shown: str) -> None:
    boundary = b"frontier"
    disposition = b'form-data; name="file"; filename="' + name.encode() + b'"'
    answer = await post(running, parts(boundary, (disposition, rows(1)), PURPOSE), boundary)
    assert answer.status_code == 200, answer.text
    assert answer.json()["filename"] == shown


@shared
async def test_files_that_end_by_themselves(running: Works) -> None:
    client = running.client("mayfly")
    file = await client.files.create(
        file=("a", rows(1)), purpose="user_data",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )  # fmt: skip
    assert file.expires_at == file.created_at + 3600
    wrong: list[Any] = [
        {"anchor": "last_active_at", "seconds": 3600},
        {"anchor": "created_at", "seconds": 3599},
        {"anchor": "created_at", "seconds": 2_592_001},
        {"anchor": "created_at", "seconds": "soon"},
    ]
    for expires in wrong:
        with pytest.raises(BadRequestError, match="expires_after"):
            await client.files.create(
                file=("a", rows(1)), purpose="user_data", expires_after=expires
            )


@shared
async def test_what_has_expired_is_gone_and_swept(running: Works) -> None:
    blobs: BlobStore = running.shop.blobs
    blob = blobs.put("default", [b"x"], name="a", purpose="batch", lives_s=0.001)
    kept = blobs.put("default", [b"x"], name="b", purpose="batch", lives_s=3600)
    await asyncio.sleep(0.002)
    client = running.client()
    with pytest.raises(NotFoundError):
        await client.files.retrieve(blob.id)
    assert blob.id not in [f.id async for f in client.files.list()]
    before = running.shop.blobs.held_bytes("default")
    assert blobs.sweep() == 1
    assert running.shop.blobs.held_bytes("default") == before - 1
    assert (await client.files.retrieve(kept.id)).id == kept.id


FILE = (b'form-data; name="file"; filename="a"', b"x")
PURPOSE = (b'form-data; name="purpose"', b"fine-tune")


def parts(boundary: bytes, *given: tuple[bytes, bytes]) -> bytes:
    body = b"".join(
        b"--%b\r\ncontent-disposition: %b\r\n\r\n%b\r\n" % (boundary, disposition, content)
        for disposition, content in given
    )
    return body + b"--%b--\r\n" % boundary


async def post(
    running: Works,
    body: Any,
    boundary: bytes = b"b",
    kind: str = "multipart/form-data; boundary={}",
) -> httpx.Response:
    key = running.key("hostile")
    kind = kind.format(boundary.decode())
    headers = {"authorization": f"Bearer {key}", "content-type": kind}
    return await running.site.http.post("/v1/files", content=body, headers=headers)


@shared
@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "file"),
        (b"garbage", 400, "upload"),
        (b"--b\r\n\r\n\r\n--b--\r\n", 400, "upload"),
        (parts(b"b", PURPOSE), 400, "`file` is missing"),
        (parts(b"b", FILE), 400, "purpose"),
        (parts(b"b", (b'form-data; name="file"', b"x"), PURPOSE), 400, "is no file"),
        (parts(b"b", FILE, FILE, PURPOSE), 400, "Too many files"),
        (parts(b"b", *[PURPOSE] * 40, FILE), 400, "Too many fields"),
        (parts(b"b", (PURPOSE[0], b"x" * 5000), FILE), 400, "maximum size"),
        (parts(b"b", (PURPOSE[0] + b"; x=" + b"y" * 10_000, b"x"), FILE), 400, "upload"),
        (parts(b"b", (PURPOSE[0], b"fine-tune-results"), FILE), 400, "purpose"),
        (parts(b"b", (FILE[0], b""), PURPOSE), 400, "empty"),
        (parts(b"b", (FILE[0], b"x" * 1_048_577), PURPOSE), 413, "larger than 1 MiB"),
        (parts(b"b", (FILE[0], b"x" * 3_000_000), PURPOSE), 413, "larger than 1 MiB"),
    ],
    ids=range(14),
)
async def test_uploads_that_are_none(running: Works, body: bytes, status: int, words: str) -> None:
    answer = await post(running, body)
    assert (answer.status_code, words in answer.json()["error"]["message"]) == (
        status, True,
    ), answer.text  # fmt: skip


@shared
async def test_an_endless_upload_without_a_length_is_cut_off(running: Works) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b"--b\r\ncontent-disposition: " + FILE[0] + b"\r\n\r\n"
        while sent < 500_000_000:
            sent += 65_536
            yield b"x" * 65_536

    try:
        answer = await post(running, endless())
        assert answer.status_code == 413
    except (httpx.ReadError, httpx.WriteError):
        pass  # the connection was closed on the sender
    assert sent < 50_000_000


@shared
async def test_other_content_types_and_no_key(running: Works) -> None:
    answer = await post(running, b"{}", kind="application/json")
    assert (answer.status_code, "multipart" in answer.text) == (400, True)
    answer = await running.site.http.post("/v1/files", content=b"x")
    assert answer.status_code == 401


@shared
async def test_a_tenant_fills_its_own_share_only(running: Works) -> None:
    client = running.client("hoarder")
    for _ in range(5):
        await client.files.create(file=("a", b"x" * 1_000_000), purpose="batch")
    with pytest.raises(APIStatusError, match=r"more than 0\.005 GiB together") as caught:
        await client.files.create(file=("a", b"x" * 1_000_000), purpose="batch")
    assert caught.value.status_code == 413
    await running.client("ours").files.create(file=("a", b"x" * 1_000_000), purpose="batch")


@shared
async def test_a_client_that_goes_away_leaves_nothing(running: Works) -> None:
    key = running.key("leaver")
    host, port = running.site.url.removeprefix("http://").split(":")
    head = (
        f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        "content-type: multipart/form-data; boundary=b\r\ncontent-length: 900000\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as plain:
        plain.sendall(head.encode() + parts(b"b", PURPOSE, FILE)[:120])
    await asyncio.sleep(0.1)
    assert running.shop.blobs.page("leaver") == []
    folder = Path(running.shop.settings.home.store / "blobs" / "leaver")
    assert not folder.exists()
