"""The document says what the gateway does: every route, field and error, and nothing more."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
import pytest_asyncio
from fastapi.routing import APIRoute

from serving.gateway.app import SHORT_PATHS
from serving.gateway.directory import ENDPOINTS
from serving.gateway.fields import DROPPED, rules_by_path
from serving.gateway.limits import RequestLimits
from serving.home import Home
from serving.store.config import StoreConfig
from serving.store.opening import open_store
from tests.unit.finetuning.site import idle_finetuning
from tests.unit.gateway.in_process import Site, gateway, local
from tests.unit.retrieval.site import idle_retrieval


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    root = tmp_path_factory.mktemp("site")
    store = open_store(StoreConfig(), root / "store")
    service = idle_finetuning(Home(root), store, local("fake"))
    stores = idle_retrieval(Home(root), store, local("fake"))
    async with gateway(root, local("fake"), finetuning=service, retrieval=stores) as running:
        yield running
    store.close()


shared = pytest.mark.asyncio(loop_scope="module")


async def document(site: Site) -> dict[str, Any]:
    answer = await site.http.get("/openapi.json")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref":
                yield inner
            else:
                yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


@shared
async def test_every_route_is_documented_and_nothing_else(site: Site) -> None:
    found = {
        (method.upper(), path)
        for path, item in (await document(site))["paths"].items()
        for method in item
    }
    engines = {("POST", path) for path in ENDPOINTS | set(SHORT_PATHS)}
    own = {
        (method, re.sub(r":\w+}", "}", route.path))
        for route in site.routes
        if isinstance(route, APIRoute) and route.include_in_schema
        for method in route.methods
    }
    assert found == engines | own
    hidden = {r.path for r in site.routes if isinstance(r, APIRoute) and not r.include_in_schema}
    assert hidden == {"/openapi.json", "/docs", "/docs/docs.js", "/docs/docs.css"}


@shared
async def test_every_operation_says_what_it_does_and_how_it_fails(site: Site) -> None:
    for path, item in (await document(site))["paths"].items():
        for operation in item.values():
            assert operation["summary"], path
            assert operation["tags"], path
            assert {"200", "400", "401", "404", "429", "503"} <= set(operation["responses"]), path
            assert "422" not in operation["responses"], path
            for status, answer in operation["responses"].items():
                assert answer["description"], (path, status)
                for described in answer["content"].values():
                    assert "$ref" in described.get("schema", {"$ref": ""}) or path == "/metrics"
                assert answer["content"], (path, status)


@shared
async def test_every_reference_leads_somewhere(site: Site) -> None:
    made = await document(site)
    schemas = made["components"]["schemas"]
    for reference in references(made):
        assert reference.removeprefix("#/components/schemas/") in schemas


@shared
@pytest.mark.parametrize("path", sorted(ENDPOINTS))
async def test_every_field_is_documented(site: Site, path: str) -> None:
    made = await document(site)
    body = made["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    schema = made["components"]["schemas"][body["$ref"].rpartition("/")[2]]
    assert set(schema["properties"]) == set(rules_by_path(RequestLimits())[path]) | DROPPED[path]
    assert schema["additionalProperties"] is False


@shared
async def test_caps_are_those_of_the_configuration(site: Site) -> None:
    schemas = (await document(site))["components"]["schemas"]
    options = schemas["ChatCompletionsRequest"]["properties"]["n"]["anyOf"]
    assert {"type": "integer", "minimum": 0, "maximum": 8} in options


class _Sources(HTMLParser):
    """What a page loads, and whether it has scripts or styles of its own inside."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "link", "img", "iframe"):
            self.loaded.append(given.get("src") or given.get("href") or "")
        self.inline += [name for name in given if name.startswith("on") or name == "style"]


@shared
async def test_the_page_loads_nothing_from_elsewhere(site: Site) -> None:
    page = await site.http.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    sources = _Sources()
    sources.feed(page.text)
    assert sorted(sources.loaded) == ["/docs/docs.css", "/docs/docs.js"]
    assert sources.inline == []
    for path in sources.loaded:
        text = (await site.http.get(path)).text
        assert not re.search(r"https?://|eval\(|innerHTML|new Function|@import", text)
