"""The token path: names, bytes, faults, disconnects; through real sockets, without Ray."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
import pytest_asyncio

from serving.config import GatewayConfig
from tests.unit.gateway.in_process import (
    CHUNKED,
    WAIT_S,
    Site,
    StubLease,
    StubPool,
    chunk,
    gateway,
    local,
    sample,
    scripted,
    whole,
    write_adapter,
)

PATHS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "one two"}]},
    "/v1/completions": {"prompt": "one two"},
    "/v1/responses": {"input": "one two"},
    "/v1/messages": {"messages": [{"role": "user", "content": "one two"}], "max_tokens": 4},
}
OTHER_PATHS: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"input": "one two"},
    "/v1/rerank": {"query": "one", "documents": ["one", "two"]},
    "/v1/score": {"text_1": "one", "text_2": "two"},
    "/tokenize": {"prompt": "one two"},
    "/detokenize": {"tokens": []},
}
COMPLETIONS = "/v1/completions"
MODEL = local("fake")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    root = tmp_path_factory.mktemp("site")
    config = GatewayConfig(max_body_mib=0.25)
    async with gateway(root, local("fake", tokens=4), local("other"), config=config) as running:
        yield running


shared = pytest.mark.asyncio(loop_scope="module")


@shared
@pytest.mark.parametrize("name", ["fake", "other"])
async def test_the_named_model_answers(site: Site, name: str) -> None:
    answer = await site.http.post(COMPLETIONS, json={"model": name, "prompt": "one two"})
    assert answer.status_code == 200
    assert answer.json()["model"] == name
    assert answer.headers["content-type"] == "application/json"


@shared
@pytest.mark.parametrize(("path", "body"), [*PATHS.items(), *OTHER_PATHS.items()])
async def test_every_endpoint_answers(site: Site, path: str, body: dict[str, Any]) -> None:
    answer = await site.http.post(path, json=body | {"model": "fake"})
    assert answer.status_code == 200, answer.text
    assert answer.json()


@shared
@pytest.mark.parametrize("path", ["/rerank", "/v2/rerank", "/score"])
async def test_other_servers_paths_answer_too(site: Site, path: str) -> None:
    body = OTHER_PATHS["/v1/score" if path == "/score" else "/v1/rerank"]
    answer = await site.http.post(path, json=body | {"model": "fake"})
    assert answer.status_code == 200, answer.text


@shared
async def test_the_openai_client_streams_and_counts(site: Site) -> None:
    async with site.openai() as client:
        stream = await client.chat.completions.create(
            model="fake",
            messages=[{"role": "user", "content": "one two"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [item async for item in stream]
    text = "".join(item.choices[0].delta.content or "" for item in chunks if item.choices)
    assert text == "one two one two"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4


@shared
async def test_the_anthropic_client_streams(site: Site) -> None:
    client = anthropic.AsyncAnthropic(base_url=site.url, api_key="none", max_retries=0)
    async with (
        client,
        client.messages.stream(
            model="fake", max_tokens=3, messages=[{"role": "user", "content": "one two"}]
        ) as stream,
    ):
        assert await stream.get_final_text() == "one two one"


@shared
async def test_unknown_model_is_404_with_the_near_name(site: Site) -> None:
    async with site.openai() as client:
        with pytest.raises(openai.NotFoundError, match="did you mean fake") as caught:
            await client.completions.create(model="fakes", prompt="x")
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"


@shared
async def test_unknown_adapter_is_404(site: Site) -> None:
    answer = await site.http.post(COMPLETIONS, json={"model": "fake:pirate", "prompt": "x"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


@shared
async def test_a_missing_model_with_several_candidates_names_them(site: Site) -> None:
    answer = await site.http.post(COMPLETIONS, json={"prompt": "x"})
    assert answer.status_code == 400
    assert "fake, other" in answer.json()["error"]["message"]


async def test_a_missing_model_with_one_candidate_is_that_one(tmp_path: Path) -> None:
    async with gateway(tmp_path, MODEL) as site:
        answer = await site.http.post(COMPLETIONS, json={"prompt": "one"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["text"].startswith("one")


@shared
@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        (b"{", None, "not valid JSON"),
        (b"", None, "not valid JSON"),
        (b'{"model": "fake", "prompt": "\xff"', None, "not valid UTF-8"),
        (b"[" * 100_000, None, "object"),
        (b'{"x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", None, "50001 levels"),
        (b"[]", None, "object"),
        (b'"text"', None, "object"),
        (b'{"model": 7}', "model", "str"),
        (b'{"model": "fake", "stream": "yes"}', "stream", "bool"),
    ],
    ids=["cut", "empty", "utf-8", "deep", "deep field", "list", "string", "model", "stream"],
)
async def test_a_body_that_makes_no_sense_is_400(
    site: Site, body: bytes, param: str | None, words: str
) -> None:
    answer = await site.http.post(COMPLETIONS, content=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
    assert error["param"] == param
    assert words in error["message"]


@shared
async def test_the_engines_own_refusal_passes_unchanged(site: Site) -> None:
    body = {"model": "fake", "prompt": "x", "max_tokens": 100_000, "stream": True}
    answer = await site.http.post(COMPLETIONS, json=body)
    assert answer.status_code == 400
    assert "maximum context length" in answer.json()["error"]["message"]


@shared
async def test_an_oversize_body_is_413(site: Site) -> None:
    answer = await site.http.post(COMPLETIONS, content=b" " * (300 << 10))
    assert answer.status_code == 413
    assert "0.25 MiB" in answer.json()["error"]["message"]


@shared
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_another_method_is_405(site: Site, method: str) -> None:
    answer = await site.http.request(method, COMPLETIONS)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["error"]["type"] == "invalid_request_error"


@shared
@pytest.mark.parametrize(
    ("request_", "status", "kind"),
    [
        ({"content": b"{"}, 400, "invalid_request_error"),
        ({"json": {"model": "fakes"}}, 404, "not_found_error"),
    ],
)
async def test_messages_errors_wear_anthropics_envelope(
    site: Site, request_: dict[str, Any], status: int, kind: str
) -> None:
    answer = await site.http.post("/v1/messages", **request_)
    assert answer.status_code == status
    assert answer.json()["type"] == "error"
    assert answer.json()["error"]["type"] == kind


async def test_an_adapter_gets_its_engine_name_and_all_else_unchanged(tmp_path: Path) -> None:
    fields = b'"prompt": "\\u00e9 \xc3\xa9",  "top_p": 0.50, "logit_bias": {"7" : 1e1,  "5":-2}'
    body = b'{"model": "fake:pirate", ' + fields + b"}"
    write_adapter(tmp_path, "pirate", "v2")
    async with scripted(tmp_path / "s", whole()) as replica:
        pool = StubPool([replica.lease(), replica.lease()])
        async with gateway(tmp_path, MODEL, pools={"fake": pool}) as site:
            assert (await site.http.post(COMPLETIONS, content=body)).status_code == 200
            plain = body.replace(b"fake:pirate", b"fake")
            assert (await site.http.post(COMPLETIONS, content=plain)).status_code == 200
    renamed, untouched = (request.partition(b"\r\n\r\n")[2] for request in replica.requests)
    assert untouched == plain
    expected = b'{"model":"fake:pirate@v2",' + fields.replace(b'":  ', b'":').replace(b'": ', b'":')
    sent, given = json.loads(renamed), json.loads(body)
    assert sent == given | {"model": "fake:pirate@v2"}
    for value in (b'"\\u00e9 \xc3\xa9"', b"0.50", b'{"7" : 1e1,  "5":-2}'):
        assert value in renamed
    assert renamed.startswith(expected[:28])
    assert pool.asked[0] is not None
    assert pool.asked[0].engine_name == "fake:pirate@v2"
    assert pool.asked[1] is None


async def test_an_adapter_answers_through_the_real_engine(tmp_path: Path) -> None:
    write_adapter(tmp_path, "pirate", "v1")
    async with gateway(tmp_path, MODEL) as site, site.openai() as client:
        answer = await client.completions.create(model="fake:pirate", prompt="ahoy")
        assert answer.choices[0].text.startswith("[fake:pirate@v1] ahoy")
        models = {model.id async for model in client.models.list()}
        assert models == {"fake", "fake:pirate", "fake:pirate@v1"}


async def test_the_request_bears_ticket_and_request_id(tmp_path: Path) -> None:
    async with scripted(tmp_path / "s", whole()) as replica:
        pool = StubPool([StubLease(replica.address, "ticket-1")])
        async with gateway(tmp_path, MODEL, pools={"fake": pool}) as site:
            await site.http.post(COMPLETIONS, json={"prompt": "x"}, headers={"cookie": "secret"})
    head = replica.requests[0].partition(b"\r\n\r\n")[0]
    assert b"x-corral-ticket: ticket-1" in head
    assert b"x-request-id: " in head
    assert b"secret" not in head


async def test_chunks_pass_as_they_come(tmp_path: Path) -> None:
    seen = asyncio.Event()

    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + chunk(b"data: 1\n\n"))
        await seen.wait()
        writer.write(chunk(b"data: 2\n\n") + chunk(b""))

    async with scripted(tmp_path / "s", answer) as replica:
        lease = replica.lease()
        pools = {"fake": StubPool([lease])}
        async with (
            gateway(tmp_path, MODEL, pools=pools) as site,
            site.http.stream("POST", COMPLETIONS, json={"stream": True}) as response,
        ):
            pieces = response.aiter_bytes()
            assert await anext(pieces) == b"data: 1\n\n"
            seen.set()
            assert b"".join([piece async for piece in pieces]) == b"data: 2\n\n"
    assert lease.ended == ["released"]


@shared
async def test_requests_are_counted_by_route_model_and_status(site: Site) -> None:
    def count(**labels: str) -> float:
        return sample(site.metrics.exposition(), "corral_requests_total", **labels)

    good, bad = ({"route": "/v1/score", "model": m, "status": s} for m, s in
                 (("fake", "200"), ("", "404")))  # fmt: skip
    before = count(**good), count(**bad)
    for model in ("fake", "nobody"):
        body = OTHER_PATHS["/v1/score"] | {"model": model}
        await site.http.post("/v1/score", json=body)
    assert (count(**good), count(**bad)) == (before[0] + 1, before[1] + 1)


@shared
async def test_a_request_cut_by_its_client_is_no_server_error(site: Site) -> None:
    _, writer = await asyncio.open_connection(*httpx.URL(site.url).netloc.decode().split(":"))
    writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    async with asyncio.timeout(WAIT_S):
        counted = "corral_requests_total"
        while not sample(site.metrics.exposition(), counted, status="499"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert sample(site.metrics.exposition(), "corral_requests_total", status="500") == 0
