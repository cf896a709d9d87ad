"""The outermost layer: request ids, headers, origins, HEAD, bodies that come slowly or never."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from pydantic import ValidationError

from serving.config import GatewayConfig
from serving.gateway.door_config import CorsConfig, HttpLimits, TlsConfig
from tests.unit.gateway.in_process import Site, StubPool, gateway, local, scripted, whole

COMPLETIONS = "/v1/completions"
ORIGIN = "https://app.example.com"
CONFIG = GatewayConfig(
    max_body_mib=0.25,
    http=HttpLimits(max_headers=20, max_header_bytes=8192, body_timeout_s=1),
    cors=CorsConfig(origins=(ORIGIN,)),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    root = tmp_path_factory.mktemp("site")
    async with gateway(root, local("fake", tokens=4), config=CONFIG) as running:
        yield running


shared = pytest.mark.asyncio(loop_scope="module")


async def exchange(site: Site, sent: bytes) -> bytes:
    """What comes back until the server closes."""
    address = httpx.URL(site.url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(sent)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


@shared
@pytest.mark.parametrize("path", ["/health", "/nothing", COMPLETIONS])
async def test_a_request_id_is_given_back(site: Site, path: str) -> None:
    answer = await site.http.get(path, headers={"x-request-id": "a.b-C_9"})
    assert answer.headers.get_list("x-request-id") == ["a.b-C_9"]


@shared
@pytest.mark.parametrize("given", ["x" * 129, "a b", "a\tb", "<script>", ""])
async def test_a_malformed_request_id_is_replaced(site: Site, given: str) -> None:
    answer = await site.http.get("/health", headers={"x-request-id": given})
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


async def test_the_engine_gets_the_same_id(tmp_path: Path) -> None:
    async with scripted(tmp_path / "s", whole()) as replica:
        pools = {"fake": StubPool([replica.lease()])}
        async with gateway(tmp_path, local("fake"), pools=pools) as site:
            headers = {"x-request-id": "mine"}
            answer = await site.http.post(COMPLETIONS, json={"prompt": "x"}, headers=headers)
    assert b"x-request-id: mine\r\n" in replica.requests[0]
    assert answer.headers["x-request-id"] == "mine"


@shared
async def test_every_kind_of_answer_bears_the_security_headers(site: Site) -> None:
    for answer in (
        await site.http.get("/health"),
        await site.http.get("/nothing"),
        await site.http.get(COMPLETIONS),
        await site.http.post(COMPLETIONS, json={"prompt": "x"}),
        await site.http.post(COMPLETIONS, json={"prompt": "x", "stream": True}),
        await site.http.get("/health", headers={f"x-{i}": "y" for i in range(30)}),
    ):
        assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
        assert answer.headers.get_list("cache-control") == ["no-store"]


@shared
@pytest.mark.parametrize(
    "headers", [{f"x-{i}": "y" for i in range(20)}, {"x": "y" * 9000}], ids=["many", "large"]
)
@pytest.mark.parametrize("path", ["/health", COMPLETIONS])
async def test_headers_are_limited(site: Site, headers: dict[str, str], path: str) -> None:
    answer = await site.http.get(path, headers=headers)
    assert answer.status_code == 400
    assert "accepted" in answer.json()["error"]["message"]


@shared
async def test_head_is_get_without_a_body(site: Site) -> None:
    answer = await site.http.head("/health")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "15"
    assert (await site.http.head(COMPLETIONS)).status_code == 405


@shared
async def test_a_configured_origin_may_call_and_read(site: Site) -> None:
    headers = {"origin": ORIGIN, "access-control-request-method": "POST"}
    asked = await site.http.options(COMPLETIONS, headers=headers)
    assert asked.status_code == 204
    assert "authorization" in asked.headers["access-control-allow-headers"]
    for path in (COMPLETIONS, "/health"):
        answer = await site.http.get(path, headers={"origin": ORIGIN})
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert answer.headers["vary"] == "origin"
        assert "access-control-allow-credentials" not in answer.headers


@shared
@pytest.mark.parametrize("origin", ["https://evil.example.com", "null", ORIGIN + ".evil.com"])
async def test_another_origin_may_not(site: Site, origin: str) -> None:
    headers = {"origin": origin, "access-control-request-method": "POST"}
    assert (await site.http.options(COMPLETIONS, headers=headers)).status_code == 403
    answer = await site.http.get("/health", headers={"origin": origin})
    assert "access-control-allow-origin" not in answer.headers


async def test_without_configuration_no_origin_may_and_with_a_star_all_may(tmp_path: Path) -> None:
    headers = {"origin": ORIGIN, "access-control-request-method": "POST"}
    async with gateway(tmp_path, local("fake")) as site:
        assert (await site.http.options(COMPLETIONS, headers=headers)).status_code == 403
    open_to_all = GatewayConfig(cors=CorsConfig(origins=("*",)))
    async with gateway(tmp_path, local("fake"), config=open_to_all) as site:
        answer = await site.http.options(COMPLETIONS, headers=headers)
        assert answer.headers["access-control-allow-origin"] == "*"


@shared
async def test_a_body_that_stops_coming_is_408(site: Site) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{"
    answer = await exchange(site, head)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer


@shared
async def test_a_declared_size_is_refused_before_the_body(site: Site) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n"
    assert (await exchange(site, head)).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("asked", [True, False])
async def test_bodies_are_logged_only_when_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, asked: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    async with gateway(tmp_path, local("fake"), config=GatewayConfig(log_content=asked)) as site:
        for body in ({"prompt": "canary"}, {"prompt": "canary", "n": "canary"}, {"canary": 1}):
            await site.http.post(COMPLETIONS, json=body, headers={"authorization": "canary-key"})
    assert ("canary" in caplog.text) is asked
    assert "canary-key" not in caplog.text


@pytest.mark.parametrize("origin", ["app.example.com", "https://x/", "https://*.x", "https://"])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ValidationError, match="no origin"):
        CorsConfig(origins=(origin,))


def test_tls_wants_both_files() -> None:
    with pytest.raises(ValidationError, match="both"):
        TlsConfig(certificate="x")
    assert not TlsConfig().enabled
