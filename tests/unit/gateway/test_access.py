"""Every route against everybody: who is let in, and that no route was forgotten."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from starlette.routing import BaseRoute, Route

from serving.gateway.access import rule_of
from serving.gateway.directory import ENDPOINTS
from serving.home import Home
from serving.store.accounts import Accounts
from serving.store.audit import Actor
from serving.store.config import StoreConfig
from serving.store.keys import KeySpec
from tests.unit.finetuning.site import idle_finetuning
from tests.unit.gateway.in_process import ADMIN_KEY, Site, StubPool, gateway, local, write_adapter
from tests.unit.retrieval.site import idle_retrieval

SELF = Actor("test")
BODY = {"model": "fake", "prompt": "x", "messages": [], "input": "x", "max_tokens": 1}
WORLD = (
    *("none", "empty", "wrong", "revoked", "expired", "disabled"),
    *("member", "foreign service", "foreign admin", "service", "admin"),
)
GUESTS = {"member", "foreign service", "foreign admin"}
STRANGERS = {"none", "empty", "wrong", "revoked", "expired", "disabled"}
WELCOME = {
    "public": set(WORLD),
    "key": GUESTS | {"service", "admin"},
    "operator": {"service", "admin"},
    "admin": {"admin"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def accounts(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Accounts]:
    opened = Accounts.open(StoreConfig(), tmp_path_factory.mktemp("store"), ADMIN_KEY)
    yield opened
    opened.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory, accounts: Accounts) -> AsyncIterator[Site]:
    root = tmp_path_factory.mktemp("site")
    write_adapter(root, "secret", "1")
    write_adapter(root, "shared", "1")
    models = (local("fake", tokens=1), local("other", tokens=1))
    service = idle_finetuning(Home(root), accounts.store, *models)
    stores = idle_retrieval(Home(root), accounts.store, *models)
    async with gateway(
        root, *models, accounts=accounts, finetuning=service, retrieval=stores
    ) as running:
        yield running


@pytest.fixture(scope="module")
def keys(accounts: Accounts) -> dict[str, str]:
    """One bearer of each kind."""
    for tenant in ("acme", "closed"):
        accounts.tenants.create(tenant, SELF)
    made = {
        "member": accounts.keys.create(KeySpec("acme"), SELF).secret,
        "service": accounts.keys.create(KeySpec("default", role="service"), SELF).secret,
        "foreign service": accounts.keys.create(KeySpec("acme", role="service"), SELF).secret,
        "foreign admin": accounts.keys.create(KeySpec("acme", role="admin"), SELF).secret,
        "disabled": accounts.keys.create(KeySpec("closed"), SELF).secret,
    }
    revoked = accounts.keys.create(KeySpec("acme"), SELF)
    accounts.keys.revoke(revoked.key.id, SELF)
    now = accounts.store.now_us()
    expired = accounts.keys.create(KeySpec("acme", expires_us=now + 50_000), SELF)
    accounts.tenants.set_disabled("closed", True, SELF)
    while accounts.store.now_us() <= now + 50_000:
        pass
    wrong = made["member"][:-1] + ("a" if made["member"][-1] != "a" else "b")
    return made | {
        "none": "", "empty": " ", "wrong": wrong, "admin": ADMIN_KEY,
        "revoked": revoked.secret, "expired": expired.secret,
    }  # fmt: skip


def bearing(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}".strip()} if key else {}


def routes(site: Site) -> list[tuple[str, str]]:
    """Every method and template of the application, the engines' paths with them."""
    found = {("POST", path) for path in ENDPOINTS}
    for route in site.app.routes:
        found |= _of(route)
    return sorted(found)


def _of(route: BaseRoute) -> set[tuple[str, str]]:
    if not isinstance(route, Route):
        raise AssertionError(f"{route} is of a kind that this test does not know")
    return {(method, route.path) for method in route.methods or {"POST"} if method != "HEAD"}


@pytest.mark.asyncio(loop_scope="module")
async def test_every_route_against_everybody(site: Site, keys: dict[str, str]) -> None:
    table = routes(site)
    assert len(table) > 50
    for method, template in table:
        rule = "key" if template in ENDPOINTS else rule_of(template)
        assert rule is not None, f"{method} {template} has no rule in access.RULES"
        path = re.sub(r"\{[^}]+\}", "x", template)
        for bearer in WORLD:
            headers = bearing(keys[bearer])
            body = None if method == "GET" else BODY
            answer = await site.http.request(method, path, headers=headers, json=body)
            case = f"{method} {path} as {bearer}: {answer.status_code} {answer.text[:200]}"
            if bearer in WELCOME[rule]:
                assert answer.status_code not in (401, 403), case
            else:
                assert answer.status_code == (401 if bearer in STRANGERS else 403), case
                assert "error" in answer.json(), case
            assert answer.status_code < 500 or path == "/ready", case


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
async def test_a_key_is_taken_from_either_header(
    site: Site, keys: dict[str, str], header: str
) -> None:
    value = keys["member"] if header == "x-api-key" else f"bearer {keys['member']}"
    answer = await site.http.get("/v1/models", headers={header: value})
    assert answer.status_code == 200


@pytest.mark.asyncio(loop_scope="module")
async def test_refusals_say_why(site: Site, keys: dict[str, str]) -> None:
    codes = {}
    for bearer in STRANGERS:
        headers = bearing(keys[bearer])
        error = (await site.http.get("/v1/models", headers=headers)).json()["error"]
        codes[bearer] = error["code"]
        assert error["type"] == "authentication_error"
        assert keys[bearer].strip() == "" or keys[bearer] not in error["message"]
    assert codes == {
        "none": "invalid_api_key", "empty": "invalid_api_key", "wrong": "invalid_api_key",
        "revoked": "key_revoked", "expired": "key_expired", "disabled": "tenant_disabled",
    }  # fmt: skip


@pytest.mark.asyncio(loop_scope="module")
async def test_a_key_sees_and_uses_what_it_is_allowed_and_nothing_else(
    site: Site, accounts: Accounts
) -> None:
    spec = KeySpec(
        "acme", models=["fake"], adapters=["fake:sh*"], endpoints=["/v1/completions", "/v1/models*"]
    )
    headers = {"authorization": f"Bearer {accounts.keys.create(spec, SELF).secret}"}
    listed = (await site.http.get("/v1/models", headers=headers)).json()["data"]
    assert [card["id"] for card in listed] == ["fake", "fake:shared", "fake:shared@1"]

    async def ask(path: str, model: str) -> tuple[int, str]:
        answer = await site.http.post(path, headers=headers, json={"prompt": "x", "model": model})
        return answer.status_code, answer.text

    for model in ("fake", "fake:shared", "fake:shared@1"):
        assert (await ask("/v1/completions", model))[0] == 200
    for path, model in [
        ("/v1/completions", "other"),
        ("/v1/completions", "fake:secret"),
        ("/v1/completions", "fake:secret@1"),
        ("/v1/chat/completions", "fake"),
    ]:
        status, text = await ask(path, model)
        assert (status, '"permission_error"' in text) == (403, True), text
    for name in ("fake:secret", "other"):
        assert (await site.http.get(f"/v1/models/{name}", headers=headers)).status_code == 404
    status, text = await ask("/v1/completions", "fak")
    assert status == 404
    assert "secret" not in text
    assert "other" not in text


@pytest.mark.asyncio(loop_scope="module")
async def test_a_revoked_key_is_out_at_once(site: Site, accounts: Accounts) -> None:
    made = accounts.keys.create(KeySpec("acme"), SELF)
    headers = {"authorization": f"Bearer {made.secret}"}
    for _ in range(3):
        assert (await site.http.get("/v1/models", headers=headers)).status_code == 200
    accounts.keys.revoke(made.key.id, SELF)
    assert (await site.http.get("/v1/models", headers=headers)).status_code == 401


async def test_a_route_without_a_rule_is_closed_even_to_admins(tmp_path: Path) -> None:
    accounts = Accounts.open(StoreConfig(), tmp_path / "store", ADMIN_KEY)
    async with gateway(
        tmp_path, local("fake"), pools={"fake": StubPool([])}, accounts=accounts
    ) as site:

        @site.app.get("/forgotten")
        async def forgotten() -> dict[str, str]:
            return {"secret": "yes"}

        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        answer = await site.http.get("/forgotten", headers=headers)
        assert answer.status_code == 403
        assert "secret" not in answer.text
    accounts.close()
