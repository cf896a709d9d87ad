"""The token path when something breaks: clients that leave, replicas that die, full pools."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from serving.config import GatewayConfig
from serving.errors import PoolBusy, PoolUnavailable
from serving.gateway.exchange import ATTEMPTS
from serving.gateway.pool import Pool
from tests.unit.gateway.in_process import (
    CHUNKED,
    WAIT_S,
    StubLease,
    StubPool,
    chunk,
    gateway,
    local,
    raw,
    sample,
    scripted,
    whole,
)

PATHS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "one two"}]},
    "/v1/completions": {"prompt": "one two"},
    "/v1/responses": {"input": "one two"},
    "/v1/messages": {"messages": [{"role": "user", "content": "one two"}], "max_tokens": 4},
}
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EVENT = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"choices":[]}\n\n'
CUT_STREAM = raw(CHUNKED + chunk(EVENT), then_close=True)
MODEL = local("fake")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", PATHS)
async def test_a_client_that_leaves_ends_the_engines_work(
    tmp_path: Path, path: str, stream: bool
) -> None:
    slow = local("fake", tokens=100, token_interval_s=30.0)
    async with gateway(tmp_path, slow) as site:
        body = {**PATHS[path], "stream": stream}
        leaving = asyncio.ensure_future(site.http.post(path, json=body))
        await site.until_busy("fake")
        leaving.cancel()
        await site.until_idle("fake")
        assert sample(site.metrics.exposition(), "corral_requests_in_flight") == 0
        assert sample(site.metrics.exposition(), "corral_requests_total", status="499") == 1


async def test_a_client_that_leaves_frees_the_replica_for_the_next(tmp_path: Path) -> None:
    slow = local("fake", max_ongoing=1, tokens=2, token_interval_s=0.0, first_token_s=30.0)
    async with gateway(tmp_path, slow) as site:
        for _ in range(3):
            leaving = asyncio.ensure_future(site.http.post(COMPLETIONS, json={"prompt": "x"}))
            await site.until_busy("fake")
            waiting = asyncio.ensure_future(site.http.post(COMPLETIONS, json={"prompt": "x"}))
            await asyncio.sleep(0.02)
            waiting.cancel()
            leaving.cancel()
            await site.until_idle("fake")


async def test_a_replica_dead_before_the_head_is_replaced(tmp_path: Path) -> None:
    dead = StubLease(str(tmp_path / "nobody"))
    async with scripted(tmp_path / "s", raw(b"", then_close=True)) as replica:
        breaking = replica.lease()

        def failing_first(_: str, pool: Pool) -> Pool:
            return StubPool([dead, breaking, pool])

        async with gateway(tmp_path, MODEL, wrap=failing_first) as site:
            answer = await site.http.post(COMPLETIONS, json={"prompt": "x"})
            assert answer.status_code == 200, answer.text
            assert sample(site.metrics.exposition(), "corral_replica_retries_total") == 2
    assert dead.ended == breaking.ended == ["abandoned"]


@pytest.mark.parametrize(
    "stale",
    [
        raw(b"HTTP/1.1 409 Conflict\r\ncontent-length: 0\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", then_close=True),
        raw(CHUNKED + chunk(b'{"half":'), then_close=True),
    ],
    ids=["stale ticket", "cut body", "cut chunked body"],
)
async def test_whole_answers_are_tried_again(tmp_path: Path, stale: Any) -> None:
    async with scripted(tmp_path / "s", stale) as replica:
        broken = replica.lease()
        async with gateway(tmp_path, MODEL, wrap=lambda _, pool: StubPool([broken, pool])) as site:
            answer = await site.http.post(COMPLETIONS, json={"prompt": "one"})
            assert answer.status_code == 200, answer.text
            assert answer.json()["choices"][0]["text"].startswith("one")
    assert broken.ended == ["abandoned"]


async def test_replicas_that_all_fail_are_503(tmp_path: Path) -> None:
    leases = [StubLease(str(tmp_path / "nobody")) for _ in range(ATTEMPTS + 1)]
    pool = StubPool(list(leases))
    async with gateway(tmp_path, MODEL, pools={"fake": pool}) as site:
        answer = await site.http.post(COMPLETIONS, json={"prompt": "x"})
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "model_unavailable"
    assert "retry-after" in answer.headers
    assert len(pool.offers) == 1


async def test_a_stream_that_breaks_off_ends_in_an_error_event(tmp_path: Path) -> None:
    async with scripted(tmp_path / "s", CUT_STREAM) as replica:
        leases = [replica.lease(), replica.lease()]
        pools = {"fake": StubPool(list(leases))}
        async with gateway(tmp_path, MODEL, pools=pools) as site:
            answer = await site.http.post(CHAT, json={"stream": True})
            assert answer.status_code == 200
            assert answer.content.startswith(EVENT + b"event: error\ndata: ")
            assert b"[DONE]" not in answer.content
            error = json.loads(answer.content.rpartition(b"data: ")[2])["error"]
            assert error["code"] == "replica_lost"
            async with site.openai() as client:
                stream = await client.chat.completions.create(
                    model="fake", messages=[], stream=True
                )
                with pytest.raises(openai.APIError, match="broke off"):
                    async for _ in stream:
                        pass
    assert [lease.ended for lease in leases] == [["abandoned"], ["abandoned"]]


async def test_a_messages_stream_that_breaks_off_raises_in_anthropics_client(
    tmp_path: Path,
) -> None:
    start = b'event: message_stop\ndata: {"type": "message_stop"}\n\n'
    async with scripted(tmp_path / "s", raw(CHUNKED + chunk(start), then_close=True)) as replica:
        pools = {"fake": StubPool([replica.lease()])}
        async with gateway(tmp_path, MODEL, pools=pools) as site:
            client = anthropic.AsyncAnthropic(base_url=site.url, api_key="none", max_retries=0)
            async with client:
                stream = await client.messages.create(
                    model="fake", max_tokens=3, messages=[], stream=True
                )
                with pytest.raises(anthropic.APIError, match="broke off") as caught:
                    async for _ in stream:
                        pass
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["type"] == "error"


async def test_a_busy_pool_is_429_with_retry_after(tmp_path: Path) -> None:
    pools = {"fake": StubPool([PoolBusy("every replica is at its limit", 2.3)])}
    async with gateway(tmp_path, MODEL, pools=pools) as site:
        answer = await site.http.post(COMPLETIONS, json={"prompt": "x"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    assert answer.json()["error"]["type"] == "rate_limit_error"


async def test_a_full_replica_is_429_after_the_lease_timeout(tmp_path: Path) -> None:
    slow = local("fake", max_ongoing=1, first_token_s=30.0)
    config = GatewayConfig(lease_timeout_s=0.05)
    async with gateway(tmp_path, slow, config=config) as site:
        running = asyncio.ensure_future(site.http.post(COMPLETIONS, json={"prompt": "x"}))
        await site.until_busy("fake")
        answer = await site.http.post(COMPLETIONS, json={"prompt": "x"})
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        running.cancel()
        await site.until_idle("fake")


async def test_an_unavailable_pool_is_503(tmp_path: Path) -> None:
    pools = {"fake": StubPool([PoolUnavailable("no replica of 'fake' is alive")])}
    async with gateway(tmp_path, MODEL, pools=pools) as site:
        answer = await site.http.post(COMPLETIONS, json={"prompt": "x"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["error"]["type"] == "service_unavailable_error"


async def test_an_unforeseen_error_is_500_in_the_envelope(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pools = {"fake": StubPool([KeyError("surprise")])}
    async with gateway(tmp_path, MODEL, pools=pools) as site:
        answer = await site.http.post(COMPLETIONS, json={"prompt": "x"})
        assert sample(site.metrics.exposition(), "corral_requests_total", status="500") == 1
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (500, "internal_error")
    assert "surprise" not in error["message"]
    assert error["message"].rpartition(" ")[2] in caplog.text


async def test_leases_and_connections_are_used_again(tmp_path: Path) -> None:
    async with scripted(tmp_path / "s", whole()) as replica:
        leases = [replica.lease() for _ in range(3)]
        async with gateway(tmp_path, MODEL, pools={"fake": StubPool(list(leases))}) as site:
            for _ in leases:
                await site.http.post(COMPLETIONS, json={"prompt": "x"})
    assert [lease.ended for lease in leases] == [["released"]] * 3
    assert replica.connections == 1


async def test_requests_at_once_each_get_their_own_answer(tmp_path: Path) -> None:
    async with gateway(tmp_path, local("fake", token_interval_s=0.001)) as site:
        bodies = [{"prompt": f"word{n}", "max_tokens": 3, "stream": n % 2 == 0} for n in range(64)]
        answers = await asyncio.gather(*(site.http.post(COMPLETIONS, json=body) for body in bodies))
        for body, answer in zip(bodies, answers, strict=True):
            assert answer.status_code == 200
            assert answer.text.count("word") == answer.text.count(str(body["prompt"])) == 3
        await site.until_idle("fake")


async def test_a_client_that_does_not_read_holds_the_replica_back(tmp_path: Path) -> None:
    total, piece, sent = 48 << 20, b"x" * (1 << 16), 0

    async def flood(_: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(CHUNKED)
        while sent < total:
            writer.write(chunk(piece))
            await writer.drain()
            sent += len(piece)
        writer.write(chunk(b""))

    async with scripted(tmp_path / "s", flood) as replica:
        pools = {"fake": StubPool([replica.lease()])}
        async with (
            gateway(tmp_path, MODEL, pools=pools) as site,
            site.http.stream("POST", COMPLETIONS, json={"stream": True}) as response,
        ):
            await asyncio.sleep(0.3)
            assert 0 < sent < 24 << 20
            async with asyncio.timeout(WAIT_S):
                received = sum([len(data) async for data in response.aiter_bytes()])
            assert received == total
