"""Documents made to do harm cost an error for their own file, and nothing else."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag.errors import Unparsable
from rag.load.config import LoadConfig
from rag.load.pool import ParserPool
from rag.protocols import RawFile
from tests import documents

MIB = 1 << 20
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def pool() -> Iterator[ParserPool]:
    config = LoadConfig(workers=1, memory_mib=256, max_text_mib=4, timeout_s=20)
    with ParserPool(config) as found:
        yield found


def zip_bomb() -> bytes:
    """Office by its names, 1 GiB by its index."""
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("word/document.xml", "<x/>")
        with file.open("word/big.xml", "w", force_zip64=True) as part:
            for _ in range(600):
                part.write(bytes(MIB))
    return found.getvalue()


def lying_zip() -> bytes:
    """An index that says 10 bytes of a part that unpacks to 64 MiB."""
    data = bytearray(documents.archive({"word/document.xml": bytes(64 * MIB)}))
    at = data.rfind(b"PK\x01\x02")
    data[at + 24 : at + 28] = (10).to_bytes(4, "little")
    return bytes(data)


def laughs(part: str) -> bytes:
    """Entities that expand to 10^9 laughs."""
    lines = ['<!ENTITY a0 "lol">']
    lines += [f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10)]
    declared = f"<?xml version='1.0'?><!DOCTYPE x [{''.join(lines)}]><x>&a9;</x>"
    return documents.archive({part: declared.encode(), "[Content_Types].xml": b"<Types/>"})


def deep_pdf(objects: list[bytes]) -> bytes:
    body = b"%PDF-1.7\n"
    offsets = []
    for number, one in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, one)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return body + b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<</Size %d /Root 1 0 R>>\n" % (
        len(objects) + 1, table, len(objects) + 1,
    ) + b"startxref\n%d\n%%%%EOF" % len(body)  # fmt: skip


PAGES = b"<</Type /Catalog /Pages 2 0 R>>"
STREAM = zlib.compress(bytes(200 * MIB), 9)
HOSTILE: dict[str, tuple[str, bytes]] = {
    "zip bomb": ("a.docx", zip_bomb()),
    "lying zip": ("a.docx", lying_zip()),
    "billion laughs in Word": ("a.docx", laughs("word/document.xml")),
    "billion laughs in Excel": ("a.xlsx", laughs("xl/workbook.xml")),
    "billion laughs in a wiki": ("a.zip", laughs("entities.xml")),
    "looping pages": ("a.pdf", deep_pdf([PAGES, b"<</Type /Pages /Kids [2 0 R] /Count 1>>"])),
    "nested arrays": ("a.pdf", deep_pdf([b"[" * 50_000 + b"]" * 50_000, PAGES])),
    "looping reference": ("a.pdf", deep_pdf([b"1 0 R"])),
    "stream bomb": (
        "a.pdf",
        deep_pdf(
            [
                PAGES,
                b"<</Type /Pages /Kids [3 0 R] /Count 1>>",
                b"<</Type /Page /Parent 2 0 R /Contents 4 0 R /MediaBox [0 0 9 9]>>",
                b"<</Length %d /Filter /FlateDecode>>\nstream\n%s\nendstream"
                % (len(STREAM), STREAM),
            ]
        ),
    ),
    "nested JSON": ("a.json", b"[" * 200_000),
    "too much text": ("a.txt", b"word " * MIB),
    "nested HTML": ("a.html", b"<html><body>" + b"<div>" * 20_000 + b"x"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_bomb_is_an_error_of_its_own_file(name: str, pool: ParserPool) -> None:
    uri, data = HOSTILE[name]
    with pytest.raises(Unparsable):
        pool.parse(RawFile(uri, data))
    assert pool.parse(RawFile("good.md", b"# Fine"))[0].title == "Fine"


@pytest.mark.parametrize(
    ("uri", "data"),
    [
        ("a.txt", b"x" * 3 * MIB),
        ("a.md", b">" * 100_000),
        ("a.md", b"[" * 50_000),
        ("a.py", b"(" * 100_000),
        ("a.csv", b'"' * 100_001 + b"\n"),
        ("a.txt", bytes(range(1, 256)) * 100),
        ("a.eml", b"Content-Type: multipart/mixed; boundary=x\n\n" + b"--x\n" * 10_000),
        ("a.html", b"<table>" * 5_000),
    ],
)
def test_odd_files_end_in_text_or_an_error(uri: str, data: bytes, pool: ParserPool) -> None:
    try:
        found = pool.parse(RawFile(uri, data))
    except Unparsable:
        found = []
    assert all(document.text for document in found)


def test_a_file_that_takes_too_long_is_given_up() -> None:
    with (
        ParserPool(LoadConfig(workers=1, timeout_s=0.01)) as pool,
        pytest.raises(Unparsable, match=r"longer than load\.timeout_s"),
    ):
        pool.parse(RawFile("a.txt", b"x"))


def test_memory_is_bounded() -> None:
    rows = b"\n".join(b'{"a": %d}' % number for number in range(1_500_000))
    config = LoadConfig(workers=1, memory_mib=128, max_text_mib=1024, timeout_s=60)
    with ParserPool(config) as pool:
        with pytest.raises(Unparsable, match=r"load\.memory_mib"):
            pool.parse(RawFile("a.jsonl", rows))
        assert pool.parse(RawFile("a.txt", b"Fine"))[0].text == "Fine"


def test_workers_see_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRAL_API_KEY", "secret")
    with ParserPool(LoadConfig(workers=1)) as fresh:
        fresh.parse(RawFile("a.txt", b"x"))
        (worker,) = fresh._idle
        with open(f"/proc/{worker._process.pid}/environ", "rb") as file:
            assert b"secret" not in file.read()


def test_a_worker_outlives_the_thread_that_started_it() -> None:
    with ParserPool(LoadConfig(workers=1)) as pool:
        thread = threading.Thread(target=pool.parse, args=(RawFile("a.txt", b"x"),))
        thread.start()
        thread.join()
        (first,) = pool._idle
        assert pool.parse(RawFile("a.txt", b"y"))[0].text == "y"
        assert pool._idle == [first]


def test_a_worker_that_died_idle_is_replaced() -> None:
    with ParserPool(LoadConfig(workers=1)) as pool:
        pool.parse(RawFile("a.txt", b"x"))
        (first,) = pool._idle
        os.kill(first._process.pid, signal.SIGKILL)
        first._process.wait()
        assert pool.parse(RawFile("a.txt", b"y"))[0].text == "y"


def test_workers_end_when_their_parent_is_killed() -> None:
    code = (
        "import sys, time; from rag.load.pool import ParserPool;"
        "from rag.load.config import LoadConfig; from rag.protocols import RawFile;"
        "pool = ParserPool(LoadConfig(workers=1)); pool.parse(RawFile('a.txt', b'x'));"
        "print(pool._idle[0]._process.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 30
    while _runs(worker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(worker)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_closing_ends_the_workers() -> None:
    pool = ParserPool(LoadConfig(workers=1))
    pool.parse(RawFile("a.txt", b"x"))
    (worker,) = pool._idle
    pool.close()
    with pytest.raises(ProcessLookupError):
        os.kill(worker._process.pid, 0)
