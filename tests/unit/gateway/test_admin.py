"""Admin routes: who may, and what happens to adapters on disk and in the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from serving.config import FakeConfig, LoraConfig, ModelConfig
from serving.store.accounts import Accounts
from serving.store.config import StoreConfig
from tests.unit.gateway.in_process import ADMIN_KEY, Site, StubPool, gateway, local, write_adapter

KEY = {"authorization": f"Bearer {ADMIN_KEY}"}
ROUTES = [
    ("GET", "/admin/adapters"),
    ("GET", "/admin/adapters/pirate"),
    ("POST", "/admin/adapters/load"),
    ("POST", "/admin/adapters/unload"),
    ("GET", "/admin/status"),
]


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    for version in ("v1", "v2"):
        write_adapter(tmp_path, "pirate", version)
    accounts = Accounts.open(StoreConfig(), tmp_path / "store", ADMIN_KEY)
    async with gateway(tmp_path, local("fake"), accounts=accounts) as running:
        running.http.headers.update(KEY)
        yield running
    accounts.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def locked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    root, pools = tmp_path_factory.mktemp("locked"), {"fake": StubPool([])}
    accounts = Accounts.open(StoreConfig(), root / "store", ADMIN_KEY)
    async with gateway(root, local("fake"), pools=pools, accounts=accounts) as running:
        yield running
    accounts.close()


async def _act(site: Site, verb: str, status: int = 200, **body: Any) -> Any:
    answer = await site.http.post(f"/admin/adapters/{verb}", json=body, headers=KEY)
    assert answer.status_code == status, answer.text
    return answer.json()


async def _loaded(site: Site) -> list[str]:
    (status,) = await site.pools["fake"].broadcast("status")
    return list(status["adapters"])


async def _ask(site: Site, model: str) -> int:
    answer = await site.http.post("/v1/completions", json={"model": model, "prompt": "x"})
    return answer.status_code


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer"},
        {"authorization": f"Basic {ADMIN_KEY}"},
        {"authorization": ADMIN_KEY},
        {"authorization": f"Bearer {ADMIN_KEY}x"},
        {"authorization": "Bearer \xe9"},
    ],
    ids=["none", "wrong", "empty", "basic", "bare", "longer", "not ascii"],
)
async def test_without_the_key_every_route_is_401(
    locked: Site, method: str, path: str, headers: dict[str, str]
) -> None:
    encoded = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    answer = await locked.http.request(method, path, headers=encoded)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert ADMIN_KEY not in answer.text


async def test_the_key_opens_them_whatever_the_case_of_bearer(site: Site) -> None:
    for scheme in ("Bearer", "bearer"):
        answer = await site.http.get(
            "/admin/adapters", headers={"authorization": f"{scheme} {ADMIN_KEY}"}
        )
        assert answer.status_code == 200
        assert [row["version"] for row in answer.json()["data"]] == ["v1", "v2"]


async def test_load_makes_a_version_live_on_every_replica(site: Site) -> None:
    assert await _act(site, "load", name="pirate", version="v1") == {
        "loaded": "fake:pirate@v1",
        "live": "fake:pirate",
    }
    assert await _loaded(site) == ["fake:pirate@v1"]
    answer = await site.http.post("/v1/completions", json={"model": "fake:pirate", "prompt": "x"})
    assert answer.json()["choices"][0]["text"].startswith("[fake:pirate@v1]")


async def test_unload_stops_serving_until_the_next_load(site: Site) -> None:
    await _act(site, "load", name="pirate", version="v1")
    assert await _ask(site, "fake:pirate") == 200
    assert await _act(site, "unload", name="pirate") == {
        "unloaded": ["fake:pirate@v1", "fake:pirate@v2"]
    }
    assert await _loaded(site) == []
    assert await _ask(site, "fake:pirate") == 404
    await _act(site, "load", name="pirate", version="v2")
    assert await _ask(site, "fake:pirate") == 200
    assert await _ask(site, "fake:pirate@v1") == 404


async def test_unloading_one_version_leaves_the_other(site: Site) -> None:
    assert await _act(site, "unload", name="pirate", version="v2") == {
        "unloaded": ["fake:pirate@v2"]
    }
    assert [await _ask(site, f"fake:pirate@{version}") for version in ("v1", "v2")] == [200, 404]


async def test_show_tells_versions_and_who_holds_them(site: Site) -> None:
    await _act(site, "load", name="pirate", version="v1")
    answer = await site.http.get("/admin/adapters/pirate", headers=KEY)
    assert [row["live"] for row in answer.json()["versions"]] == [True, False]
    assert answer.json()["loaded"] == [{"replica": "local", "adapter": "fake:pirate@v1"}]


@pytest.mark.parametrize("verb", ["load", "unload"])
async def test_an_unknown_adapter_is_404_in_every_action(site: Site, verb: str) -> None:
    for body in ({"name": "nobody"}, {"name": "pirate", "version": "v9"}):
        error = (await _act(site, verb, 404, **body))["error"]
        assert error["code"] == "model_not_found"
    assert (await site.http.get("/admin/adapters/nobody", headers=KEY)).status_code == 404


async def test_a_refused_load_leaves_an_unloaded_adapter_unloaded(tmp_path: Path) -> None:
    write_adapter(tmp_path, "pirate", "v1")
    off = FakeConfig(lora=LoraConfig(max_loras=1))
    async with gateway(tmp_path, ModelConfig(name="fake", engine=off)) as site:
        await _act(site, "unload", name="pirate")
        object.__setattr__(off, "lora", LoraConfig(max_loras=0))  # the engine now refuses all
        assert (await _act(site, "load", 400, name="pirate"))["error"]["code"] == "adapter_refused"
        assert await _ask(site, "fake:pirate") == 404


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "name"), ({"name": 7}, "name"), ({"name": "a", "verison": "v1"}, "verison")],
)
async def test_a_wrong_body_is_400_naming_the_field(
    site: Site, body: dict[str, Any], param: str
) -> None:
    error = (await _act(site, "load", 400, **body))["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


async def test_status_shows_every_replica(site: Site) -> None:
    answer = await site.http.get("/admin/status", headers=KEY)
    assert answer.json()["models"] == ["fake"]
    (replica,) = answer.json()["replicas"]
    assert (replica["model"], replica["running"], replica["adapters"]) == ("fake", 0, [])
    assert "vllm:num_requests_running" in replica["metrics"]
