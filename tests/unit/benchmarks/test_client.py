"""The load client against the real fake engine, on a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from benchmarks.client import run_load
from benchmarks.load import LoadResult, LoadSpec
from benchmarks.workload import TokenWorkload
from serving.config import FakeConfig
from serving.engines.base import EngineSpec
from serving.engines.fake import FakeEngine


@asynccontextmanager
async def serving(app: Any, **where: Any) -> AsyncIterator[int]:
    server = uvicorn.Server(
        uvicorn.Config(app, lifespan="off", log_level="critical", **({"port": 0} | where))
    )
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    try:
        name = server.servers[0].sockets[0].getsockname()
        yield name[1] if isinstance(name, tuple) else 0
    finally:
        server.should_exit = True
        await task


async def fake_app(**config: Any) -> Any:
    return await FakeEngine(EngineSpec("fake", None), FakeConfig(**config)).start()


def spec(url: str, **fields: Any) -> LoadSpec:
    quick = {"streams": 3, "max_tokens": 8, "warmup_s": 0.02, "duration_s": 0.2, "ramp_s": 0.01}
    return LoadSpec(**({"url": url, "model": "fake"} | quick | fields))


async def test_counts_every_token_event_of_every_stream() -> None:
    words: list[str] = []
    async with serving(await fake_app(token_interval_s=0.002)) as port:
        result = await run_load(spec(f"http://127.0.0.1:{port}"), words.append)
    assert words == ["started", "ended"]
    assert (result.failed, result.errors) == (0, [])
    assert result.completed > 3
    assert result.completed_chunks == result.total_output_tokens == 8 * result.completed
    assert result.reads == result.chunks
    assert abs(result.chunks - result.completed_chunks) <= 3 * 8
    assert len(result.ttfts) >= result.completed - 3
    assert result.output_throughput == pytest.approx(result.chunk_throughput)
    assert result.itls_ms["median"] > 0
    assert result.client_cpu_us_per_chunk > 0
    assert LoadResult.from_json(result.to_json()) == result


async def test_speaks_over_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    async with serving(await fake_app(token_interval_s=0.002), uds=path):
        result = await run_load(spec(f"unix:{path}", streams=1))
    assert result.failed == 0
    assert result.completed > 0


async def test_connections_are_reused() -> None:
    inner, clients = await fake_app(token_interval_s=0.001), set()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        clients.add(scope["client"])
        await inner(scope, receive, send)

    async with serving(app) as port:
        result = await run_load(spec(f"http://127.0.0.1:{port}"))
    assert result.completed > 3
    assert len(clients) == 3


async def test_a_refusal_is_an_error_with_its_reason_not_a_fast_answer() -> None:
    async with serving(await fake_app()) as port:
        result = await run_load(spec(f"http://127.0.0.1:{port}", model="nobody"))
    assert (result.completed, result.chunks) == (0, 0)
    assert result.failed >= 3
    assert "404" in result.errors[0]
    assert "nobody" in result.errors[0]


async def test_a_connection_that_breaks_in_mid_answer_is_an_error() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        event = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
        await send({"type": "http.response.body", "body": event, "more_body": True})

    async with serving(app) as port:
        result = await run_load(spec(f"http://127.0.0.1:{port}"))
    assert result.completed == 0
    assert "lost" in result.errors[0]


async def test_a_server_that_is_not_there_is_an_error() -> None:
    result = await run_load(spec("unix:/nowhere/at/all", duration_s=0.05))
    assert "cannot connect" in result.errors[0]


def pieces(text: bytes, size: int) -> list[bytes]:
    return [text[i : i + size] for i in range(0, len(text), size)]


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
async def test_events_are_counted_right_however_they_are_cut(size: int) -> None:
    token = {"choices": [{"index": 0, "delta": {"content": "x\n"}}]}
    events = [json.dumps(token, separators=(",", ":"))] * 5
    events += [json.dumps({"choices": [], "usage": {"completion_tokens": 6}}), "[DONE]"]
    body = "".join(f"data: {event}\n\n" for event in events).encode()

    async def app(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in pieces(body, size):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with serving(app) as port:
        result = await run_load(spec(f"http://127.0.0.1:{port}", streams=1))
    assert result.failed == 0
    assert result.completed > 0
    assert result.completed_chunks == 5 * result.completed
    assert result.total_output_tokens == 6 * result.completed


def tokens_app(seen: list[dict[str, Any]], interval_s: float = 0.001) -> Any:
    """Answers completions token by token, and notes what was asked."""

    async def app(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message["more_body"]:
                break
        asked = json.loads(body)
        seen.append(asked | {"path": scope["path"]})
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(asked["max_tokens"]):
            try:
                await asyncio.wait_for(receive(), interval_s)
                return  # the client has left
            except TimeoutError:
                pass
            event = {"choices": [{"index": 0, "text": ""}]}
            data = f"data: {json.dumps(event, separators=(',', ':'))}\n\n".encode()
            await send({"type": "http.response.body", "body": data, "more_body": True})
        usage = {"choices": [], "usage": {"completion_tokens": 2 * asked["max_tokens"]}}
        await send(
            {"type": "http.response.body", "body": f"data: {json.dumps(usage)}\n\n".encode()}
        )

    return app


async def test_token_prompts_are_new_each_time_and_first_answers_are_spread() -> None:
    seen: list[dict[str, Any]] = []
    async with serving(tokens_app(seen)) as port:
        result = await run_load(
            spec(
                f"http://127.0.0.1:{port}",
                streams=4,
                tokens=TokenWorkload(input_tokens=6, seed=1),
                spread=True,
            )
        )
    assert result.failed == 0
    assert {asked["path"] for asked in seen} == {"/v1/completions"}
    assert len({tuple(asked["prompt"]) for asked in seen}) == len(seen)
    assert sorted(asked["max_tokens"] for asked in seen)[:3] == [2, 4, 6]
    assert {asked["max_tokens"] for asked in seen[4:]} == {8}
    assert result.tokens_per_chunk == 2.0
    assert result.output_throughput == pytest.approx(2 * result.chunk_throughput)
    assert 0 < result.tpots_ms["median"] <= result.itls_ms["mean"]


async def test_hanging_up_counts_the_part_in_the_window_and_is_no_fault() -> None:
    seen: list[dict[str, Any]] = []
    async with serving(tokens_app(seen)) as port:
        result = await run_load(
            spec(
                f"http://127.0.0.1:{port}",
                max_tokens=100_000,
                tokens=TokenWorkload(input_tokens=6, seed=1),
                hang_up=True,
            )
        )
    assert (result.failed, result.errors, result.completed) == (0, [], 0)
    assert result.chunks > 30
    assert result.tpots_ms["median"] > 0
    assert result.output_throughput == 0, "no answer ended, so nothing says what a chunk holds"


async def test_the_fake_engine_takes_token_ids() -> None:
    async with serving(await fake_app(token_interval_s=0.001)) as port:
        result = await run_load(
            spec(f"http://127.0.0.1:{port}", tokens=TokenWorkload(input_tokens=6, seed=1))
        )
    assert (result.failed, result.errors) == (0, [])
    assert result.tokens_per_chunk == 1.0
