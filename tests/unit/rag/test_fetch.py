"""Pages are fetched from public addresses only, and from the very address that was checked."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from rag.errors import Refused, SourceUnreadable
from rag.load.config import LoadConfig, WebConfig
from rag.load.fetch import checked_address, fetch
from rag.load.parse import parse
from rag.load.source import open_source

INSIDE = [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0.0.0.0", "10.0.0.1",
    "172.16.0.1", "192.168.1.1", "169.254.169.254", "2852039166", "100.64.0.1", "224.0.0.1",
    "255.255.255.255", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:a9fe:a9fe]",
    "[fe80::1]", "[fd00:ec2::254]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[ff02::1]",
    "localhost", "LOCALHOST",
]  # fmt: skip


class Pages(BaseHTTPRequestHandler):
    """A site on the loopback interface that records what it is asked."""

    asked: list[tuple[str, dict[str, str]]]
    answers: dict[str, tuple[int, dict[str, str], bytes]]

    def do_GET(self) -> None:
        self.asked.append((self.path, dict(self.headers)))
        status, headers, body = self.answers.get(self.path, (404, {}, b""))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            for at in range(0, len(body), 65536):
                self.wfile.write(body[at : at + 65536])
                if headers.get("X-Slow"):
                    time.sleep(0.2)
        except OSError:
            pass

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Site:
    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        handler = type("Handler", (Pages,), {"asked": self.asked, "answers": self.answers})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def config(self, **more: Any) -> WebConfig:
        """This site may be reached, the rest of the machine's network may not."""
        return WebConfig(allow_networks=("127.0.0.1/32",), ports=(80, 443, self.port), **more)

    def page(self, path: str, body: bytes = b"", status: int = 200, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[path] = (status, named, body)


@pytest.fixture
def site() -> Iterator[Site]:
    found = Site()
    thread = threading.Thread(target=found.server.serve_forever, args=(0.01,))
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


@pytest.mark.parametrize("host", INSIDE)
def test_addresses_inside_are_refused(host: str) -> None:
    with pytest.raises((Refused, SourceUnreadable)):
        fetch(f"http://{host}/", WebConfig())


@pytest.mark.parametrize("host", [one.strip("[]") for one in INSIDE])
def test_no_spelling_of_an_inner_address_passes_the_check(host: str) -> None:
    with pytest.raises((Refused, SourceUnreadable)):
        checked_address(host, 80, WebConfig())


def test_public_addresses_pass() -> None:
    assert str(checked_address("1.1.1.1", 443, WebConfig())) == "1.1.1.1"
    assert str(checked_address("2606:4700::1111", 443, WebConfig())) == "2606:4700::1111"


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://example.com/", "gopher://example.com:6379/_X", "//example.com/",
     "http://user:pw@1.1.1.1/", "http://1.1.1.1:22/", "http://", "", "http://[::1", "jar:http://x!/"],
)  # fmt: skip
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(Refused):
        fetch(url, WebConfig())


def test_a_page_is_fetched_with_its_own_host_name(site: Site) -> None:
    site.page("/a?b=1", b"<html>Hi</html>", Content_Type="text/html; charset=utf-8")
    found = fetch(f"{site.url}/a?b=1", site.config())
    assert (found.data, found.media_type) == (b"<html>Hi</html>", "text/html")
    assert site.asked[0][1]["Host"] == f"127.0.0.1:{site.port}"


@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/", "http://127.0.0.2:{port}/", "file:///x"]
)
def test_redirects_are_checked_again(site: Site, target: str) -> None:
    site.page("/", status=302, Location=target.format(port=site.port))
    with pytest.raises(Refused):
        fetch(f"{site.url}/", site.config())


def test_redirects_are_followed_and_counted(site: Site) -> None:
    site.page("/", status=301, Location="/b")
    site.page("/b", b"There", Content_Type="text/plain")
    assert fetch(f"{site.url}/", site.config()).url == f"{site.url}/b"
    site.page("/b", status=301, Location="/")
    with pytest.raises(SourceUnreadable, match="redirects"):
        fetch(f"{site.url}/", site.config())


def test_a_name_that_changes_its_mind_is_asked_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = ["127.0.0.1", "10.0.0.1"]
    asked: list[str] = []

    def rebinding(host: str, port: int, *args: Any, **more: Any) -> list[Any]:
        asked.append(host)
        address = answers[min(len(asked), len(answers)) - 1] if host == "evil.test" else host
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    site.page("/", b"Fine", Content_Type="text/plain")
    assert fetch(f"http://evil.test:{site.port}/", site.config()).data == b"Fine"
    assert asked.count("evil.test") == 1
    with pytest.raises(Refused, match=r"10\.0\.0\.1"):
        fetch(f"http://evil.test:{site.port}/", site.config())


def test_a_name_with_one_inner_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 80)) for one in ("1.1.1.1", "10.1.1.1")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: found)
    with pytest.raises(Refused):
        checked_address("both.test", 80, WebConfig())


def test_size_type_status_and_time_are_bounded(site: Site) -> None:
    site.page("/big", bytes(3 << 20), Content_Type="text/plain")
    site.page("/exe", b"MZ", Content_Type="application/octet-stream")
    site.page("/slow", bytes(1 << 20), Content_Type="text/plain", X_Slow="1")
    with pytest.raises(Refused, match="max_mib"):
        fetch(f"{site.url}/big", site.config(max_mib=1))
    with pytest.raises(Refused, match="media_types"):
        fetch(f"{site.url}/exe", site.config())
    with pytest.raises(SourceUnreadable, match="404"):
        fetch(f"{site.url}/none", site.config())
    with pytest.raises(SourceUnreadable):
        fetch(f"{site.url}/slow", site.config(timeout_s=0.5))


def test_headers_do_not_follow_a_redirect_to_another_host(site: Site) -> None:
    site.page("/", status=302, Location=f"http://localhost:{site.port}/b")
    site.page("/b", b"x", Content_Type="text/plain")
    config = site.config().model_copy(update={"allow_networks": ("127.0.0.0/8", "::1/128")})
    with contextlib.suppress(SourceUnreadable):  # localhost may be ::1, where nothing listens
        fetch(f"{site.url}/", config, {"Authorization": "Bearer secret"})
    assert "Authorization" in site.asked[0][1]
    assert all("Authorization" not in headers for _, headers in site.asked[1:])


def test_a_space_is_read_page_by_page(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFLUENCE_TOKEN", "me@example.com:token")
    first = (
        "/wiki/rest/api/content?spaceKey=OPS&type=page&status=current&limit=50"
        "&expand=body.storage,ancestors,version"
    )
    page = {
        "id": "7",
        "title": "Pumps",
        "ancestors": [{"title": "Plant"}],
        "body": {"storage": {"value": "<h2>North</h2><p>Three &amp; a spare.</p>"}},
    }
    following = {"next": "/rest/api/content?start=1"}
    site.page(first, json.dumps({"results": [page], "_links": following}).encode())
    last = {"results": [{"id": "8", "title": "Empty"}], "_links": {}}
    site.page("/wiki/rest/api/content?start=1", json.dumps(last).encode())
    url = f"confluence+{site.url}/wiki?space=OPS"
    entries = list(open_source(url, LoadConfig(web=site.config())).entries())
    assert [entry.uri.rpartition("=")[2] for entry in entries] == ["7", "8"]
    assert site.asked[0][1]["Authorization"].startswith("Basic ")
    (found,) = parse(entries[0].read())
    assert found.title == "Pumps"
    assert found.blocks[-1].heading_path == ("Plant", "Pumps", "North")
    assert found.metadata == {"space": "OPS", "page": "7"}
