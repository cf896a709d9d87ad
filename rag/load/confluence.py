"""A space of a Confluence site through its REST API: `confluence+https://HOST/wiki?space=KEY`."""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import parse_qs, quote, urljoin, urlsplit

from rag.errors import SourceUnreadable
from rag.load.config import LoadConfig
from rag.load.detect import WIKI_PAGE
from rag.load.fetch import fetch
from rag.load.source import Entry
from rag.protocols import RawFile

__all__ = ["ConfluenceSource"]

_PAGES_A_REQUEST = 50
_MAX_REQUESTS = 10_000


class ConfluenceSource:
    """Implements `Source`: every current page, with the pages above it as its heading path.

    The token is in the environment (`load.confluence.token_env`): `name@example.com:TOKEN` for
    Atlassian's cloud, the bare token for a server.
    """

    def __init__(self, url: str, config: LoadConfig) -> None:
        parts = urlsplit(url.removeprefix("confluence+"))
        space = parse_qs(parts.query).get("space", [""])[0]
        if not space:
            raise SourceUnreadable(f"{url} names no space: end it with ?space=KEY")
        self._url, self._config = url, config
        self._base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._space = space

    @property
    def uri(self) -> str:
        return self._url

    def entries(self) -> Iterator[Entry]:
        """See `Source.entries`."""
        path: str | None = (
            f"{self._base}/rest/api/content?spaceKey={quote(self._space)}&type=page"
            f"&status=current&limit={_PAGES_A_REQUEST}&expand=body.storage,ancestors,version"
        )
        for _ in range(_MAX_REQUESTS):
            if path is None:
                return
            answer = self._get(path)
            for page in answer.get("results", []):
                yield self._entry(page)
            following = answer.get("_links", {}).get("next")
            path = urljoin(f"{self._base}/", following.lstrip("/")) if following else None
        raise SourceUnreadable(f"{self._url} has more pages than {_MAX_REQUESTS} requests list")

    def _get(self, url: str) -> dict[str, Any]:
        token = os.environ.get(self._config.confluence.token_env, "")
        headers = {"Accept": "application/json"}
        if ":" in token:
            headers["Authorization"] = f"Basic {base64.b64encode(token.encode()).decode()}"
        elif token:
            headers["Authorization"] = f"Bearer {token}"
        found = fetch(url, self._config.web, headers)
        try:
            answer = json.loads(found.data)
        except ValueError as exc:
            raise SourceUnreadable(
                f"{url} answers no JSON: is the path right, and the token in "
                f"${self._config.confluence.token_env}?"
            ) from exc
        return answer if isinstance(answer, dict) else {}

    def _entry(self, page: dict[str, Any]) -> Entry:
        number, title = str(page.get("id", "")), str(page.get("title", ""))
        uri = f"{self._base}/pages/viewpage.action?pageId={quote(number)}"
        names = [str(one.get("title", "")) for one in page.get("ancestors", [])]
        body = str(page.get("body", {}).get("storage", {}).get("value", ""))
        metadata = {"space": self._space, "page": number}
        data = _document(title, names, body).encode()
        raw = RawFile(uri, data, WIKI_PAGE, metadata)
        return Entry(uri, partial(_same, raw), len(data), metadata)


def _same(raw: RawFile) -> RawFile:
    return raw


def _document(title: str, above: list[str], body: str) -> str:
    """The page as one HTML file, its place in the space in `<meta>`."""
    names = "".join(f'<meta name="ancestor" content="{html.escape(one)}">' for one in above)
    return (
        f"<html><head><title>{html.escape(title)}</title>{names}</head><body>{body}</body></html>"
    )
