"""What requests through the gateway leave in the ledger, and what limits refuse."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from serving.config import ModelConfig
from serving.store.accounts import Accounts
from serving.store.audit import Actor
from serving.store.config import PriceConfig, StoreConfig
from serving.store.keys import KeySpec
from serving.store.limits import Limits
from serving.store.spent import spent_of
from serving.store.usage import UsageQuery, usage_of
from tests.unit.gateway.in_process import (
    ADMIN_KEY,
    WAIT_S,
    Site,
    gateway,
    local,
    sample,
    write_adapter,
)

SELF = Actor("test")
PRICES = {"fake": PriceConfig(input="1", output="2"), "fake:pirate": PriceConfig(output="5")}
TOKENS = 4
CHAT = {"model": "fake", "messages": [{"role": "user", "content": "one two three"}]}
REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT | {"max_tokens": TOKENS},
    "/v1/completions": {"model": "fake", "prompt": "one two three", "max_tokens": TOKENS},
    "/v1/responses": {"model": "fake", "input": "one two three", "max_output_tokens": TOKENS},
    "/v1/messages": CHAT | {"max_tokens": TOKENS},
}


@pytest_asyncio.fixture
async def accounts(tmp_path: Path) -> AsyncIterator[Accounts]:
    opened = Accounts.open(StoreConfig(), tmp_path / "store", ADMIN_KEY, prices=PRICES)
    opened.tenants.create("acme", SELF)
    yield opened
    opened.close()


def model(**fake: Any) -> ModelConfig:
    return local("fake", **fake)


@pytest_asyncio.fixture
async def site(tmp_path: Path, accounts: Accounts) -> AsyncIterator[Site]:
    write_adapter(tmp_path, "pirate", "1")
    async with gateway(tmp_path, model(), accounts=accounts) as running:
        running.http.headers["authorization"] = f"Bearer {new_key(accounts)}"
        yield running


def new_key(accounts: Accounts) -> str:
    return accounts.keys.create(KeySpec("acme"), SELF).secret


async def booked(accounts: Accounts, count: int) -> list[Any]:
    """Usage by endpoint and status, once that many requests are written."""
    async with asyncio.timeout(WAIT_S):
        while True:
            query = UsageQuery(by=("endpoint", "model", "adapter", "status"))
            rows = usage_of(accounts.store, query)
            if sum(row.requests for row in rows) >= count and accounts.ledger.pending == 0:
                return rows
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("path", REQUESTS)
async def test_what_the_engine_says_is_booked(
    site: Site, accounts: Accounts, path: str, stream: bool
) -> None:
    answer = await site.http.post(path, json=REQUESTS[path] | {"stream": stream})
    assert answer.status_code == 200, answer.text
    (row,) = await booked(accounts, 1)
    assert (row.output_tokens, row.input_tokens) == (TOKENS, 3)
    assert row.cost_nusd == 3 * 1_000 + TOKENS * 2_000
    assert (row.group["endpoint"], row.group["status"]) == (path, "complete")


async def test_an_adapter_has_a_price_of_its_own(site: Site, accounts: Accounts) -> None:
    body = REQUESTS["/v1/completions"] | {"model": "fake:pirate"}
    assert (await site.http.post("/v1/completions", json=body)).status_code == 200
    counted = site.metrics.exposition()
    who = {"tenant": "acme", "model": "fake", "adapter": "pirate"}
    assert sample(counted, "corral_tokens_total", **who, kind="output") == TOKENS
    assert sample(counted, "corral_tokens_total", **who, kind="input") == 3
    assert sample(counted, "corral_cost_usd_total", **who) == pytest.approx(TOKENS * 5e-6)
    assert sample(counted, "corral_request_cost_usd_count", model="fake", adapter="pirate") == 1
    (row,) = await booked(accounts, 1)
    assert (row.group["model"], row.group["adapter"]) == ("fake", "pirate")
    assert row.cost_nusd == TOKENS * 5_000


async def test_embedding_tokens_are_booked_as_such(site: Site, accounts: Accounts) -> None:
    body = {"model": "fake", "input": ["one two", "three"]}
    assert (await site.http.post("/v1/embeddings", json=body)).status_code == 200
    (row,) = await booked(accounts, 1)
    assert (row.embedding_tokens, row.input_tokens, row.output_tokens) == (3, 0, 0)
    assert row.cost_nusd == 3 * 1_000


@pytest.mark.parametrize("asked", [None, False, True])
async def test_a_stream_tells_its_usage_only_to_who_asked(
    site: Site, accounts: Accounts, asked: bool | None
) -> None:
    body = REQUESTS["/v1/chat/completions"] | {"stream": True}
    if asked is not None:
        body["stream_options"] = {"include_usage": asked}
    text = (await site.http.post("/v1/chat/completions", json=body)).text
    assert text.endswith("data: [DONE]\n\n")
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    assert any(chunk["choices"] == [] for chunk in chunks) is bool(asked)
    assert sum(bool(c["choices"] and c["choices"][0]["delta"].get("content")) for c in chunks) == 4
    (row,) = await booked(accounts, 1)
    assert row.output_tokens == TOKENS


@pytest.mark.parametrize("path", REQUESTS)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_a_client_that_leaves_pays_for_what_was_produced(
    tmp_path: Path, accounts: Accounts, path: str, stream: bool
) -> None:
    headers = {"authorization": f"Bearer {new_key(accounts)}"}
    body = {key: 1000 if "max" in key else value for key, value in REQUESTS[path].items()}
    async with gateway(tmp_path, model(token_interval_s=0.02), accounts=accounts) as site:
        request = site.http.build_request(
            "POST", path, json=body | {"stream": stream}, headers=headers
        )
        sending = asyncio.create_task(site.http.send(request, stream=True))
        await site.until_busy("fake")
        if stream:
            answer = await sending
            seen = 0
            async for line in answer.aiter_lines():
                seen += line.startswith("data: ")
                if seen == 5:
                    break
            await answer.aclose()
        else:
            await asyncio.sleep(0.1)
            sending.cancel()
        (row,) = await booked(accounts, 1)
    assert row.group["status"] == "interrupted"
    assert row.input_tokens == 3
    assert 1 <= row.output_tokens < 1000


async def test_an_error_of_the_engine_costs_nothing(site: Site, accounts: Accounts) -> None:
    accounts.limits.set("tenant:acme", Limits(tokens_per_day=10_000), SELF)
    body = REQUESTS["/v1/completions"] | {"prompt": "word " * 5000}
    assert (await site.http.post("/v1/completions", json=body)).status_code == 400
    ok = await site.http.post("/v1/completions", json=REQUESTS["/v1/completions"])
    assert ok.status_code == 200, ok.text
    (row,) = await booked(accounts, 1)
    assert row.requests == 1


async def test_rates_are_told_and_held(site: Site, accounts: Accounts) -> None:
    accounts.limits.set("tenant:acme", Limits(requests_per_minute=2), SELF)
    answers = [await site.http.post("/v1/completions", json=REQUESTS["/v1/completions"])
               for _ in range(3)]  # fmt: skip
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [a.headers["x-ratelimit-remaining-requests"] for a in answers] == ["1", "0", "0"]
    assert {a.headers["x-ratelimit-limit-requests"] for a in answers} == {"2"}
    refused = answers[2]
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"


async def test_parallel_requests_are_limited_and_freed(tmp_path: Path, accounts: Accounts) -> None:
    accounts.limits.set("tenant:acme", Limits(parallel_requests=1), SELF)
    headers = {"authorization": f"Bearer {new_key(accounts)}"}
    body = REQUESTS["/v1/completions"]
    async with gateway(tmp_path, model(token_interval_s=0.05), accounts=accounts) as site:
        first = asyncio.create_task(
            site.http.post("/v1/completions", json=body | {"max_tokens": 20}, headers=headers)
        )
        await site.until_busy("fake")
        assert (
            await site.http.post("/v1/completions", json=body, headers=headers)
        ).status_code == 429
        assert (await first).status_code == 200
        await booked(accounts, 1)
        assert (
            await site.http.post("/v1/completions", json=body, headers=headers)
        ).status_code == 200


async def test_a_spent_budget_is_402_in_the_envelope_of_the_client(
    site: Site, accounts: Accounts
) -> None:
    accounts.limits.set("tenant:acme", Limits(tokens_per_day=7), SELF)
    for path, status in (("/v1/chat/completions", 200), ("/v1/messages", 402)):
        answer = await site.http.post(path, json=REQUESTS[path])
        assert answer.status_code == status, answer.text
        await booked(accounts, 1)
    error = answer.json()
    assert error["type"] == "error"
    assert error["error"]["type"] == "insufficient_quota"
    assert "tokens per day of tenant acme: the limit is 7, 0 is left" in error["error"]["message"]


async def test_a_prompt_that_just_fits_is_counted_exactly(site: Site, accounts: Accounts) -> None:
    """Its bytes would not fit: three words and four tokens of seven."""
    accounts.limits.set("tenant:acme", Limits(tokens_per_day=7), SELF)
    body = REQUESTS["/v1/completions"]
    assert (await site.http.post("/v1/completions", json=body)).status_code == 200
    await booked(accounts, 1)
    assert (await site.http.post("/v1/completions", json=body)).status_code == 402
    accounts.limits.set("tenant:acme", Limits(tokens_per_day=13), SELF)
    assert (await site.http.post("/v1/completions", json=body)).status_code == 402


async def test_a_thousand_requests_through_two_gateways_overspend_nothing(tmp_path: Path) -> None:
    """A budget for a hundred of a thousand parallel requests."""
    opened = [
        Accounts.open(StoreConfig(), tmp_path / "store", ADMIN_KEY, prices=PRICES) for _ in range(2)
    ]
    first = opened[0]
    first.tenants.create("acme", SELF)
    cost = 3 * 1_000 + TOKENS * 2_000
    first.limits.set("tenant:acme", Limits(nusd_per_day=100 * cost), SELF)
    headers = {"authorization": f"Bearer {new_key(first)}"}
    roots = [tmp_path / "a", tmp_path / "b"]
    for root in roots:
        root.mkdir()
    ready = local("fake", max_ongoing=1000)
    async with AsyncExitStack() as stack:
        sites = [
            await stack.enter_async_context(gateway(root, ready, accounts=accounts))
            for root, accounts in zip(roots, opened, strict=True)
        ]
        clients = [  # the pool of one client takes time in the square of its connections
            await stack.enter_async_context(httpx.AsyncClient(headers=headers, timeout=120))
            for _ in range(50)
        ]

        async def ask(number: int) -> int:
            url = sites[number % 2].url + "/v1/completions"
            answer = await clients[number % 50].post(url, json=REQUESTS["/v1/completions"])
            return answer.status_code

        statuses = await asyncio.gather(*map(ask, range(1000)))
        granted = statuses.count(200)
        await booked(first, granted)
        while granted < 100:  # what bounds had reserved too much is free again
            assert await ask(granted) == 200
            granted += 1
        assert await ask(0) == 402
        rows = await booked(first, 100)
    assert set(statuses) == {200, 402}
    assert sum(row.requests for row in rows) == 100
    assert sum(row.cost_nusd for row in rows) == 100 * cost
    spent = spent_of(first.store, ["tenant:acme"])["tenant:acme"]
    assert spent.day[:2] == (100 * cost, 0)
    for accounts in opened:
        accounts.close()


async def test_the_unmodified_client_sees_402_as_a_status_error(
    site: Site, accounts: Accounts
) -> None:
    accounts.limits.set("tenant:acme", Limits(nusd_per_request=0), SELF)
    key = site.http.headers["authorization"].removeprefix("Bearer ")
    async with AsyncOpenAI(base_url=f"{site.url}/v1", api_key=key, max_retries=0) as client:
        with pytest.raises(Exception, match="usd per request") as caught:
            await client.chat.completions.create(**REQUESTS["/v1/chat/completions"])
    assert getattr(caught.value, "status_code", None) == 402
    assert getattr(caught.value, "code", None) == "insufficient_quota"
