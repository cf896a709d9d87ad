"""Requests meant to do harm: by the thousand at the gateway, a chosen few at a real engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from benchmarks.hostile.cases import attack, replicas
from serving.config import GatewayConfig
from serving.gateway.directory import ENDPOINTS
from serving.gateway.openapi.document import ERRORS
from serving.runtime import admin_key
from tests.hostile import CHAT, HOSTILE, VALID, Hostile, wrong_fields
from tests.integration.conftest import EMBEDDER, MODEL
from tests.integration.stack import Stack
from tests.unit.gateway.in_process import ADMIN_KEY, Site, gateway, local

shared = pytest.mark.asyncio(loop_scope="module")
HEADERS = {"content-type": "application/json"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    root = tmp_path_factory.mktemp("site")
    config = GatewayConfig(max_body_mib=2)
    async with gateway(root, local("fake", tokens=2), config=config) as running:
        yield running


def fault(sent: Hostile, answer: httpx.Response) -> str | None:
    """What is wrong with the answer, if anything is."""
    allowed = set(ERRORS) - {500, 503}
    if answer.status_code not in allowed | (set() if sent.refused else {200}):
        return f"{sent.name}: {answer.status_code} {answer.text[:300]}"
    if answer.status_code >= 400 and not answer.json()["error"]["message"]:
        return f"{sent.name}: refused without a word"
    return None


@shared
@pytest.mark.timeout(120)
async def test_thousands_of_generated_requests_find_no_fault(site: Site) -> None:
    before = await asyncio.to_thread(replicas, site.url, ADMIN_KEY)
    tally = await asyncio.to_thread(attack, site.url, key=ADMIN_KEY, seed=1, examples=3)
    assert tally.failures == 0, tally.output[-6000:]
    assert tally.cases > 1000
    assert await asyncio.to_thread(replicas, site.url, ADMIN_KEY) == before


@shared
@pytest.mark.parametrize("sent", HOSTILE, ids=[sent.name for sent in HOSTILE])
async def test_a_known_attack_is_refused(site: Site, sent: Hostile) -> None:
    answer = await site.http.post(sent.path, content=sent.body, headers=HEADERS)
    assert fault(sent, answer) is None


@shared
@pytest.mark.parametrize("path", sorted(ENDPOINTS))
async def test_every_field_may_be_wrong_in_every_way(site: Site, path: str) -> None:
    async def send(sent: Hostile) -> str | None:
        return fault(sent, await site.http.post(path, content=sent.body, headers=HEADERS))

    cases = list(wrong_fields(path))
    found = [await send(sent) for sent in cases]
    assert [one for one in found if one] == []
    if path != "/detokenize":  # the fake engine knows only ids that it gave out itself
        valid = await site.http.post(path, json=VALID[path])
        assert valid.status_code == 200, valid.text


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_the_real_engine_survives_them_all(stack: Stack, http: httpx.Client) -> None:
    key = {"authorization": f"Bearer {admin_key(stack.home)}"}

    def processes() -> dict[str, Any]:
        found = http.get("/admin/status", headers=key).json()["replicas"]
        return {replica["replica"]: replica["pid"] for replica in found}

    before = processes()
    assert len(before) == 2
    paths = [path for path in sorted(ENDPOINTS) if path != CHAT]
    wrong = [
        sent
        for path in (CHAT, *paths)
        for sent in wrong_fields(path)
        if path == CHAT or sent.name.endswith((" null", " object", " negative"))
    ]
    found = []
    for sent in (*HOSTILE, *wrong):
        answer = http.post(sent.path, content=_named(sent), headers=HEADERS)
        found.append(fault(sent, answer))
    assert [one for one in found if one] == []
    assert processes() == before
    for path, body in VALID.items():
        named = body | {"model": _model(path)}
        assert http.post(path, json=named).status_code == 200, path


def _model(path: str) -> str:
    return EMBEDDER if path in ("/v1/embeddings", "/v1/rerank", "/v1/score") else MODEL


def _named(sent: Hostile) -> bytes:
    """With a model in front, where the body is an object without one."""
    if not sent.body.startswith(b"{") or b'"model"' in sent.body:
        return sent.body
    rest = sent.body[1:]
    comma = b"" if rest.lstrip().startswith(b"}") else b","
    return b'{"model": "' + _model(sent.path).encode() + b'"' + comma + rest
