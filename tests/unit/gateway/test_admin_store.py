"""Admin routes and commands of keys, tenants, limits, usage and the audit log."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from typer.testing import CliRunner

from serving import cli
from serving.store.accounts import Accounts
from serving.store.config import PriceConfig, StoreConfig
from serving.store.errors import KeyRefused
from serving.store.ledger_types import Payer, Settle, Tokens
from tests.unit.gateway.in_process import ADMIN_KEY, Site, StubPool, gateway, local

KEY = {"authorization": f"Bearer {ADMIN_KEY}"}
ROUTES = [
    ("POST", "/admin/keys"), ("GET", "/admin/keys"), ("GET", "/admin/keys/x"),
    ("POST", "/admin/keys/x/revoke"), ("POST", "/admin/keys/x/rotate"),
    ("POST", "/admin/tenants"), ("GET", "/admin/tenants"), ("GET", "/admin/tenants/x"),
    ("PATCH", "/admin/tenants/x"), ("GET", "/admin/limits"), ("GET", "/admin/limits/tenant:x"),
    ("PUT", "/admin/limits/tenant:x"), ("GET", "/admin/usage"), ("GET", "/admin/audit"),
]  # fmt: skip


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[Accounts]:
    opened = Accounts.open(
        StoreConfig(), tmp_path / "store", ADMIN_KEY, prices={"m": PriceConfig(input="1.5")}
    )
    yield opened
    opened.close()


@pytest_asyncio.fixture
async def site(
    tmp_path: Path, accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Site]:
    monkeypatch.setenv("CORRAL_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "300")
    (tmp_path / "credentials").write_text(f"admin_key: {ADMIN_KEY}\n")
    pools = {"fake": StubPool([])}
    async with gateway(tmp_path, local("fake"), pools=pools, accounts=accounts) as running:
        yield running


async def ask(site: Site, method: str, path: str, status: int = 200, **options: Any) -> Any:
    answer = await site.http.request(method, path, headers=KEY, **options)
    assert answer.status_code == status, answer.text
    return answer.json()


async def corral(site: Site, *arguments: str) -> str:
    result = await asyncio.to_thread(CliRunner().invoke, cli.app, [*arguments, "--url", site.url])
    assert result.exit_code == 0, (result.output, result.exception)
    return str(result.stdout)


async def test_nobody_gets_in_without_the_admin_key(site: Site) -> None:
    for method, path in ROUTES:
        for headers in ({}, {"authorization": "Bearer sk-wrong"}, {"x-api-key": "sk-wrong"}):
            answer = await site.http.request(method, path, headers=headers, json={})
            assert answer.status_code == 401, (method, path)
            assert answer.json()["error"]["code"] == "invalid_api_key"


async def test_the_life_of_a_key(site: Site, accounts: Accounts) -> None:
    await ask(site, "POST", "/admin/tenants", 201, json={"id": "acme", "models": ["m"]})
    ends = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    body = {"tenant": "acme", "name": "ci", "role": "service", "expires": ends, "models": ["m*"]}
    made = await ask(site, "POST", "/admin/keys", 201, json=body)
    assert "lineage" in made["key"]
    identity = await accounts.authenticate(made["secret"])
    assert (identity.tenant_id, identity.role, identity.name) == ("acme", "service", "ci")
    id = made["key"]["id"]
    shown = await ask(site, "GET", f"/admin/keys/{made['key']['prefix']}")
    assert shown == made["key"]
    assert made["secret"] not in json.dumps(await ask(site, "GET", "/admin/keys?tenant=acme"))
    rotated = await ask(site, "POST", f"/admin/keys/{id}/rotate", 201, json={"overlap_s": 60})
    assert (await accounts.authenticate(rotated["secret"])).lineage == id
    await ask(site, "POST", f"/admin/keys/{id}/rotate", 409)
    revoked = await ask(site, "POST", f"/admin/keys/{id}/revoke")
    assert revoked["revoked"] is not None
    with pytest.raises(KeyRefused):
        await accounts.authenticate(made["secret"])
    log = await ask(site, "GET", "/admin/audit")
    assert [line["action"] for line in log["data"]][:4] == [
        "key.revoke", "key.rotate", "key.create", "tenant.create",
    ]  # fmt: skip


WRONG: list[tuple[str, str, Any, int]] = [
    ("POST", "/admin/keys", {"tenant": "nope"}, 404),
    ("POST", "/admin/keys", {"role": "god"}, 400),
    ("POST", "/admin/keys", {"expires": "2001-01-01T00:00:00Z"}, 400),
    ("POST", "/admin/keys", {"surprise": 1}, 400),
    ("POST", "/admin/tenants", {"id": "A B"}, 400),
    ("POST", "/admin/tenants", {"id": "default"}, 409),
    ("PATCH", "/admin/tenants/default", {"disabled": True}, 409),
    ("PATCH", "/admin/tenants/nope", {"disabled": True}, 404),
    ("PUT", "/admin/limits/nonsense", {}, 400),
    ("PUT", "/admin/limits/tenant:nope", {}, 404),
    ("PUT", "/admin/limits/tenant:default", {"usd_per_day": "0.0000000001"}, 400),
    ("PUT", "/admin/limits/tenant:default", {"usd_per_day": -1}, 400),
    ("PUT", "/admin/limits/tenant:default", {"tokens_per_day": 2**60}, 400),
    ("GET", "/admin/usage?by=nonsense", None, 400),
    ("GET", "/admin/audit?limit=0", None, 400),
    ("GET", "/admin/keys/%00", None, 404),
]


async def test_what_is_wrong_is_said(site: Site) -> None:
    for method, path, body, status in WRONG:
        answer = await ask(site, method, path, status, json=body)
        assert answer["error"]["message"]


async def test_limits_are_set_and_shown_with_what_is_spent(site: Site, accounts: Accounts) -> None:
    body = {"usd_per_month": "12.5", "requests_per_minute": 60}
    scope = await ask(site, "PUT", "/admin/limits/tenant_model:default/m", json=body)
    assert scope["limits"]["usd_per_month"] == "12.500000000"
    accounts.ledger.settle(Settle(Payer("default", "k", "m"), Tokens(input=1000), "/v1/x"))
    async with asyncio.timeout(10):
        while accounts.ledger.pending:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    shown = await ask(site, "GET", "/admin/limits/tenant_model:default/m")
    assert shown["month"]["spent_usd"] == shown["day"]["spent_usd"] == "0.001500000"
    assert [s["scope"] for s in (await ask(site, "GET", "/admin/limits"))["data"]] == [
        "tenant_model:default/m"
    ]
    rows = await ask(site, "GET", "/admin/usage?by=model&by=key&since=2020-01-01T00:00:00Z")
    assert rows["data"][0]["group"] == {"model": "m", "key": "k"}
    assert rows["data"][0]["cost_usd"] == "0.001500000"


async def test_the_commands(site: Site, accounts: Accounts) -> None:
    await corral(site, "tenants", "create", "acme", "--model", "m")
    secret = (await corral(site, "keys", "create", "--tenant", "acme", "--expires", "90d")).strip()
    identity = await accounts.authenticate(secret)
    assert identity.tenant_id == "acme"
    assert identity.key_id in await corral(site, "keys", "list")
    renewed = (await corral(site, "keys", "rotate", identity.key_id, "--overlap", "0s")).strip()
    with pytest.raises(KeyRefused):
        await accounts.authenticate(secret)
    await corral(site, "keys", "revoke", renewed)
    assert "revoked" in await corral(site, "keys", "list", "--tenant", "acme")
    await corral(site, "tenants", "limits", "acme", "--usd-per-day", "2", "--tokens-per-day", "9")
    found = json.loads(await corral(site, "tenants", "limits", "acme", "--tokens-per-day", "8"))
    assert (found["limits"]["usd_per_day"], found["limits"]["tokens_per_day"]) == ("2.000000000", 8)
    await corral(site, "tenants", "disable", "acme")
    assert "disabled" in await corral(site, "tenants", "list")
    shown = json.loads(await corral(site, "tenants", "show", "acme"))
    assert len(shown["keys"]) == 2
    await corral(site, "tenants", "enable", "acme")
    assert "nothing was used" in await corral(site, "usage")
    accounts.ledger.settle(Settle(Payer("acme", "k", "m"), Tokens(input=2), "/v1/x"))
    accounts.ledger.stop()
    text = await corral(site, "usage", "--by", "key,model,day", "--since", "7d", "--csv")
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["key"], row["model"], row["input_tokens"], row["cost_usd"]) == (
        "k", "m", "2", "0.000003000",
    )  # fmt: skip
    table = await corral(site, "usage")
    assert "input" in table
    assert "gpu" not in table, "sums that are zero everywhere are left out"


def test_the_store_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRAL_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()

    def run(*arguments: str, status: int = 0) -> str:
        result = CliRunner().invoke(cli.app, ["store", *arguments, "-c", "fake"])
        assert result.exit_code == status, (result.output, result.exception)
        return str(result.output)

    assert "corral store migrate" in run("check", status=1)
    assert "migrated" in run("migrate")
    assert "already" in run("migrate")
    assert "in order" in run("check")
    run("backup", str(tmp_path / "all.tar"))
    run("restore", str(tmp_path / "all.tar"), "--force")
    assert "in order" in run("check")
