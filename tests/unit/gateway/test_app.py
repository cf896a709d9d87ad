"""The gateway's own routes: health, readiness, metrics, models; and every other path."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from serving.engines.fake import HANG_ENV
from serving.errors import PoolUnavailable
from serving.gateway.directory import ENDPOINTS
from tests.unit.gateway.in_process import Site, StubPool, gateway, local, sample, write_adapter


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    root = tmp_path_factory.mktemp("site")
    async with gateway(root, local("fake"), local("other")) as running:
        yield running


shared = pytest.mark.asyncio(loop_scope="module")


async def test_health_is_the_process_alone(tmp_path: Path) -> None:
    pools = {"fake": StubPool([])}
    async with gateway(tmp_path, local("fake"), pools=pools) as site:
        assert (await site.http.get("/health")).json() == {"status": "ok"}
        ready = await site.http.get("/ready")
        assert ready.status_code == 503
        assert ready.json()["models"]["fake"]["detail"] == "stub"


@shared
async def test_ready_when_every_model_generates(site: Site) -> None:
    answer = await site.http.get("/ready")
    assert answer.status_code == 200
    assert answer.json()["ready"] is True
    assert set(answer.json()["models"]) == {"fake", "other"}


async def test_not_ready_while_an_engine_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = tmp_path / "hang"
    monkeypatch.setenv(HANG_ENV, str(hang))
    monkeypatch.setattr("serving.local_pool.PROBE_DEADLINE_S", 0.05)
    async with gateway(tmp_path, local("fake")) as site:
        hang.touch()
        assert (await site.http.get("/ready")).status_code == 503
        assert (await site.http.get("/health")).status_code == 200
        hang.unlink()
        assert (await site.http.get("/ready")).status_code == 200


@shared
async def test_metrics_tell_gateways_and_replicas_apart(site: Site) -> None:
    for model in ("fake", "fake", "other"):
        await site.http.post("/v1/completions", json={"model": model, "prompt": "x"})
    answer = await site.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = answer.text
    assert sample(text, "corral_requests_total", model="fake", gateway="gateway-1") == 2
    tokens = "vllm:generation_tokens_total"
    assert sample(text, tokens, model="fake", replica="local") == 2 * sample(
        text, tokens, model="other", replica="local"
    )
    names = [family.name for family in text_string_to_metric_families(text)]
    assert len(names) == len(set(names))


async def test_metrics_of_a_model_that_is_gone_do_not_hide_the_rest(tmp_path: Path) -> None:
    pools = {"gone": StubPool([PoolUnavailable("no replica")])}
    async with gateway(tmp_path, local("gone"), local("fake"), pools=pools) as site:
        answer = await site.http.get("/metrics")
    assert answer.status_code == 200
    assert "vllm:num_requests_running" in answer.text
    assert "corral_requests_in_flight" in answer.text


@shared
async def test_models_by_list_and_by_name(site: Site) -> None:
    write_adapter(site.home.root, "pirate", "v1")
    cards = (await site.http.get("/v1/models")).json()["data"]
    assert [card["id"] for card in cards] == ["fake", "other", "fake:pirate", "fake:pirate@v1"]
    for card in cards:
        assert (await site.http.get(f"/v1/models/{card['id']}")).json() == card
    missing = await site.http.get("/v1/models/fakes")
    assert missing.status_code == 404
    assert "did you mean fake" in missing.json()["error"]["message"]


@shared
@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v1/nothing", "/redoc", "/docs/nothing", "/v1/completions/", "/v1/models/"],
)
async def test_an_unknown_route_is_404_in_the_envelope(site: Site, path: str) -> None:
    for answer in (await site.http.get(path), await site.http.post(path, json={})):
        assert answer.status_code in (404, 405)
        assert answer.json()["error"]["type"] in ("not_found_error", "invalid_request_error")


@shared
async def test_an_unknown_route_is_named(site: Site) -> None:
    answer = await site.http.get("/v1/nothing")
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == "no route GET /v1/nothing"


@shared
async def test_a_wrong_method_says_which_is_right(site: Site) -> None:
    answer = await site.http.post("/v1/models")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    assert answer.json()["error"]["type"] == "invalid_request_error"


@shared
async def test_an_unknown_route_below_messages_wears_anthropics_envelope(site: Site) -> None:
    answer = await site.http.post("/v1/messages/batches", json={})
    assert answer.status_code == 404
    assert answer.json()["type"] == "error"


async def test_an_unforeseen_error_is_500_in_the_envelope(tmp_path: Path) -> None:
    pools = {"fake": StubPool([KeyError("surprise")])}
    async with gateway(tmp_path, local("fake"), pools=pools) as site:
        answer = await site.http.get("/metrics")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "surprise" not in answer.text


@shared
async def test_every_endpoint_is_routed(site: Site) -> None:
    for path in sorted(ENDPOINTS):
        assert (await site.http.get(path)).status_code == 405
