"""The client to replicas, against scripted servers on Unix and TCP sockets."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path

import pytest

from serving.gateway.upstream import PAUSE_BYTES, Connection, Upstream, UpstreamError
from tests.unit.gateway.in_process import CHUNKED, WAIT_S, Script, chunk, raw, scripted, whole

GET = b"GET / HTTP/1.1\r\n\r\n"


async def _body(connection: Connection) -> bytes:
    parts = []
    while part := await connection.read():
        parts.append(part)
    return b"".join(parts)


async def _exchange(upstream: Upstream, address: str) -> bytes:
    connection = await upstream.connect(address)
    await connection.request(GET)
    body = await _body(connection)
    upstream.release(address, connection)
    return body


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0.001)


async def test_head_and_body_are_parsed(tmp_path: Path) -> None:
    async with scripted(tmp_path / "s", whole(b"hello", 418, ["X-Kettle: On"])) as replica:
        connection = await Upstream().connect(replica.address)
        head = await connection.request(GET)
        assert head.status == 418
        assert (b"x-kettle", b"On") in head.headers
        assert await _body(connection) == b"hello"
        assert connection.reusable
        connection.close()


async def test_a_connection_is_reused_once_its_answer_was_read(tmp_path: Path) -> None:
    upstream = Upstream()
    async with scripted(tmp_path / "s", whole(b"1"), whole(b"2"), whole(b"3")) as replica:
        bodies = [await _exchange(upstream, replica.address) for _ in range(3)]
        assert bodies == [b"1", b"2", b"3"]
        assert replica.connections == 1
        upstream.close()


async def test_requests_at_once_get_connections_of_their_own(tmp_path: Path) -> None:
    upstream = Upstream()
    async with scripted(tmp_path / "s", whole(b"x")) as replica:
        first = await upstream.connect(replica.address)
        second = await upstream.connect(replica.address)
        assert first is not second
        for connection in (first, second):
            await connection.request(GET)
            assert await _body(connection) == b"x"
            upstream.release(replica.address, connection)
        assert {await upstream.connect(replica.address) for _ in range(2)} == {first, second}
        first.close()
        second.close()


async def test_a_half_read_answer_ends_its_connection(tmp_path: Path) -> None:
    upstream = Upstream()
    async with scripted(tmp_path / "s", raw(CHUNKED + chunk(b"a")), whole(b"b")) as replica:
        connection = await upstream.connect(replica.address)
        await connection.request(GET)
        assert await connection.read() == b"a"
        upstream.release(replica.address, connection)
        assert await _exchange(upstream, replica.address) == b"b"
        assert replica.connections == 2
        upstream.close()


async def test_connection_close_is_respected(tmp_path: Path) -> None:
    upstream = Upstream()
    async with scripted(tmp_path / "s", whole(b"x", headers=["connection: close"])) as replica:
        for _ in range(2):
            assert await _exchange(upstream, replica.address) == b"x"
        assert replica.connections == 2


async def test_a_connection_that_died_while_idle_is_not_used(tmp_path: Path) -> None:
    upstream = Upstream()
    dying = raw(b"HTTP/1.1 200 X\r\ncontent-length: 1\r\n\r\nx", then_close=True)
    async with scripted(tmp_path / "s", dying, whole(b"y")) as replica:
        assert await _exchange(upstream, replica.address) == b"x"
        await _settle()
        assert await _exchange(upstream, replica.address) == b"y"
        assert replica.connections == 2
        upstream.close()


async def test_connections_to_a_dead_replica_are_forgotten(tmp_path: Path) -> None:
    upstream = Upstream()
    async with scripted(tmp_path / "s", whole(b"x")) as replica:
        await _exchange(upstream, replica.address)
        connection = await upstream.connect(replica.address)
        upstream.release(replica.address, connection)
        dead = weakref.ref(connection)
        del connection
    await _settle()
    gc.collect()
    assert dead() is None
    with pytest.raises(UpstreamError, match="cannot connect"):
        await upstream.connect(replica.address)


async def test_a_tcp_address_is_host_and_port() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 X\r\ncontent-length: 3\r\n\r\ntcp")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        assert await _exchange(Upstream(), f"{host}:{port}") == b"tcp"


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        (raw(b"", then_close=True), "closed the connection"),
        (raw(b"HTTP/1.1 200 OK\r\ncontent-", then_close=True), "closed the connection"),
        (raw(b"SSH-2.0-OpenSSH_9.6\r\n"), "closed the connection"),
    ],
    ids=["at once", "within the head", "not HTTP"],
)
async def test_no_head_is_an_upstream_error(tmp_path: Path, script: Script, fault: str) -> None:
    async with scripted(tmp_path / "s", script) as replica:
        connection = await Upstream().connect(replica.address)
        with pytest.raises(UpstreamError, match=fault):
            await connection.request(GET)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        CHUNKED + chunk(b"half"),
        CHUNKED + chunk(b"half") + b"zz\r\n",
    ],
    ids=["content-length", "chunked", "broken chunk"],
)
async def test_a_body_that_breaks_off_is_an_upstream_error(tmp_path: Path, data: bytes) -> None:
    async with scripted(tmp_path / "s", raw(data, then_close=True)) as replica:
        connection = await Upstream().connect(replica.address)
        await connection.request(GET)
        with pytest.raises(UpstreamError):
            await _body(connection)
        assert not connection.reusable


async def test_a_closed_connection_takes_no_request(tmp_path: Path) -> None:
    async with scripted(tmp_path / "s", whole()) as replica:
        connection = await Upstream().connect(replica.address)
        connection.close()
        with pytest.raises(UpstreamError, match="while idle"):
            await connection.request(GET)


async def test_what_nobody_reads_is_not_buffered_without_bound(tmp_path: Path) -> None:
    total, piece = 64 << 20, b"x" * (1 << 16)
    sent = 0
    finished = asyncio.Event()

    async def flood(_: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        while sent < total:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
        finished.set()

    async with scripted(tmp_path / "s", flood) as replica:
        connection = await Upstream().connect(replica.address)
        await connection.request(GET)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(finished.wait(), 0.3)
        assert sent < 8 * PAUSE_BYTES
        received = 0
        async with asyncio.timeout(WAIT_S):
            while data := await connection.read():
                assert len(data) < 8 * PAUSE_BYTES
                received += len(data)
        assert received == total
        connection.close()
