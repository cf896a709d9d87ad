"""What stands before the engines, on a whole stack: HAProxy, Serve and the gateway together."""

from __future__ import annotations

import re
import socket
import ssl
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serving.runtime import runtime_directory
from tests.certificates import self_signed
from tests.integration.stack import Stack, make_home, serve

pytestmark = pytest.mark.cluster

COMPLETIONS = "/v1/completions"
CANARY = "canary-7f3a9c"
HEAD_S, BODY_S, IDLE_S = 1, 2, 4


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of the fake engine with short limits."""
    settings = {
        "gateway.max_body_mib": 1,
        "gateway.http.head_timeout_s": HEAD_S,
        "gateway.http.body_timeout_s": BODY_S,
        "gateway.http.idle_timeout_s": IDLE_S,
        "gateway.cors.origins": '["https://app.example.com"]',
        "models.0.engine.token_interval_s": 0.02,
    }
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    home = make_home(tmp_path_factory.mktemp("door"), models=())
    with serve(home, *options, config="fake") as running:
        yield running


@pytest.fixture(scope="module")
def http(site: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.url, headers=site.headers, timeout=30.0) as client:
        yield client


def raw(site: Stack, sent: bytes, *, drip: bytes = b"", every_s: float = 0.0) -> bytes:
    """All that comes back until the server closes; `drip` goes out byte by byte meanwhile."""
    address = httpx.URL(site.url)
    assert address.port is not None
    with socket.create_connection((address.host, address.port), timeout=30.0) as connection:
        connection.sendall(sent)
        connection.settimeout(every_s or 30.0)
        received = b""
        while True:
            try:
                data = connection.recv(65_536)
                received += data
                if not data:
                    return received
            except TimeoutError:
                if not drip:
                    raise
                try:
                    connection.sendall(drip[:1])
                except OSError:
                    return received
                drip = drip[1:]
            except ConnectionResetError:
                return received


def post(body: bytes, *headers: str) -> bytes:
    lines = ["POST /v1/completions HTTP/1.1", "host: x", *headers, "connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def statuses(answer: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/nothing", "/v1/completions"])
def test_a_well_formed_request_id_comes_back_once(http: httpx.Client, path: str) -> None:
    answer = http.get(path, headers={"x-request-id": "team-a.42_x"})
    assert answer.headers.get_list("x-request-id") == ["team-a.42_x"]


@pytest.mark.parametrize("given", ["", "has space", "x" * 129, "a;b", "ä"])
def test_another_request_id_is_replaced(http: httpx.Client, given: str) -> None:
    answer = http.get("/health", headers={b"x-request-id": given.encode()})
    (made,) = answer.headers.get_list("x-request-id")
    assert re.fullmatch(r"[A-Za-z0-9._-]{16,128}", made)
    assert answer.status_code == 200


def test_two_request_ids_are_none(http: httpx.Client) -> None:
    answer = http.get("/health", headers=[("x-request-id", "one"), ("x-request-id", "two")])
    (made,) = answer.headers.get_list("x-request-id")
    assert made not in ("one", "two", "one, two", "one,two")


def test_answers_bear_the_security_headers(http: httpx.Client) -> None:
    body = {"model": "fake", "prompt": "x", "max_tokens": 1}
    for answer in (
        http.get("/health"),
        http.get("/nothing"),
        http.post(COMPLETIONS, json=body),
        http.post(COMPLETIONS, json=body | {"stream": True}),
        http.post(COMPLETIONS, json={}),
    ):
        assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
        assert answer.headers.get_list("cache-control") == ["no-store"]
        assert "server" not in answer.headers


def test_only_configured_origins_may_call(http: httpx.Client) -> None:
    def preflight(origin: str) -> httpx.Response:
        headers = {"origin": origin, "access-control-request-method": "POST"}
        return http.options(COMPLETIONS, headers=headers)

    allowed = preflight("https://app.example.com")
    assert allowed.status_code == 204
    assert allowed.headers["access-control-allow-origin"] == "https://app.example.com"
    assert "access-control-allow-credentials" not in allowed.headers
    refused = preflight("https://evil.example.com")
    assert refused.status_code == 403
    assert "access-control-allow-origin" not in refused.headers


@pytest.mark.parametrize("path", ["/health", "/ready", "/v1/models", "/metrics"])
def test_head_is_get_without_a_body(http: httpx.Client, path: str) -> None:
    answer = http.head(path)
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_slow_head_is_cut_off(site: Stack) -> None:
    answer = raw(site, b"GET /health HT", drip=b"TP/1.1\r\nx: " + b"y" * 100, every_s=0.2)
    assert statuses(answer) == [408]


def test_a_slow_body_is_cut_off(site: Stack) -> None:
    answer = raw(
        site,
        post(b"{", "content-length: 1000", f"x-api-key: {site.key}"),
        drip=b" " * 100,
        every_s=0.2,
    )
    assert statuses(answer) == [408]
    assert b"request body took longer" in answer


def test_a_body_that_never_comes_is_cut_off(site: Stack) -> None:
    assert statuses(raw(site, post(b"", "content-length: 10", f"x-api-key: {site.key}"))) == [408]


def test_an_answer_may_take_longer_than_a_client_may_idle(http: httpx.Client) -> None:
    started = time.monotonic()
    answer = http.post(COMPLETIONS, json={"prompt": "x", "max_tokens": 250})
    assert answer.status_code == 200
    assert time.monotonic() - started > IDLE_S, "the answer came too soon to prove anything"


def test_headers_are_limited_in_number_and_size(site: Stack) -> None:
    many = [f"x-{index}: y" for index in range(80)]
    for headers in (many, [f"x: {'y' * 20_000}"], [f"x-{i}: {'y' * 1000}" for i in range(40)]):
        answer = raw(site, post(b"{}", "content-length: 2", *headers))
        assert statuses(answer) == [400]


def test_a_large_body_is_refused_before_it_is_sent(site: Stack) -> None:
    answer = raw(site, post(b"", "content-length: 99999999", f"x-api-key: {site.key}"))
    assert statuses(answer) == [413]


def test_a_client_cannot_steer_serve(http: httpx.Client) -> None:
    headers = {
        b"serve_multiplexed_model_id": b"\xff\xfe",
        b"x-request-timeout-seconds": b"0.001",
        b"x-session-id": b"\xff",
        b"x-request-disconnect-disabled": b"1",
    }
    answer = http.post(COMPLETIONS, json={"prompt": "x", "max_tokens": 10}, headers=headers)
    assert answer.status_code == 200, answer.text


SMUGGLED = b"GET /admin/status HTTP/1.1\r\nhost: x\r\n\r\n"
SMUGGLING = {
    "cl.te": post(b"0\r\n\r\n" + SMUGGLED, "content-length: 50", "transfer-encoding: chunked"),
    "te.te": post(b"0\r\n\r\n" + SMUGGLED, "transfer-encoding: chunked, identity"),
    "spaced": post(b"0\r\n\r\n" + SMUGGLED, "transfer-encoding : chunked"),
    "two lengths": post(b"{}" + SMUGGLED, "content-length: 2", "content-length: 40"),
    "negative": post(SMUGGLED, "content-length: -1"),
    "hex": post(SMUGGLED, "content-length: 0x10"),
    "plus": post(b"{}" + SMUGGLED, "content-length: +2"),
    "bad chunk": post(b"zz\r\n{}\r\n0\r\n\r\n" + SMUGGLED, "transfer-encoding: chunked"),
    "huge chunk": post(b"fffffffffffffffff\r\n{}", "transfer-encoding: chunked"),
    "bare cr": b"GET /health HTTP/1.1\rhost: x\r\n\r\n",
    "null": b"GET /health\x00 HTTP/1.1\r\nhost: x\r\n\r\n",
    "folded": post(b"{}", "content-length: 2", "x: a\r\n b"),
    "old": b"GET /health HTTP/0.9\r\n\r\n",
    "h2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("sent", SMUGGLING.values(), ids=SMUGGLING)
def test_no_second_request_rides_along(site: Stack, sent: bytes) -> None:
    try:
        answer = raw(site, sent)
    except TimeoutError:
        pytest.fail("the connection stays open")
    assert len(statuses(answer)) <= 1
    assert all(status < 500 for status in statuses(answer))
    assert b"/admin" not in answer


def test_no_key_prompt_or_answer_is_in_a_log(site: Stack, http: httpx.Client) -> None:
    headers = {"authorization": f"Bearer sk-{CANARY}", "x-api-key": f"sk-{CANARY}"}
    prompt = {"model": "fake", "prompt": f"{CANARY} again", "max_tokens": 2}
    bodies = [
        prompt,
        prompt | {"stream": True},
        prompt | {"max_tokens": 100_000},
        prompt | {"n": CANARY},
        {"model": CANARY, "prompt": "x"},
        {CANARY: 1},
    ]
    for body in bodies:
        assert http.post(COMPLETIONS, json=body).status_code in (200, 400, 404)
        assert http.post(COMPLETIONS, json=body, headers=headers).status_code == 401
    http.post(COMPLETIONS, content=CANARY.encode(), headers=headers)
    http.get("/admin/status", headers=headers)
    http.get(f"/v1/models/{CANARY}", headers=headers)
    folders = [site.home.root, runtime_directory(site.home)]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    found = [path for path in files if CANARY.encode() in path.read_bytes()]
    assert found == []


def test_https_from_certificate_files(tmp_path: Path) -> None:
    tls = self_signed(tmp_path / "tls")
    home = make_home(tmp_path / "home", models=())
    options = ["--set", f"gateway.tls.certificate={tls.certificate}"]
    options += ["--set", f"gateway.tls.key={tls.key}"]
    with serve(home, *options, config="fake", certificate=tls.certificate) as stack:
        assert stack.url.startswith("https://")
        trusted = ssl.create_default_context(cafile=tls.certificate)
        with httpx.Client(base_url=stack.url, headers=stack.headers, verify=trusted) as client:
            body = {"model": "fake", "prompt": "one", "max_tokens": 2}
            assert client.post(COMPLETIONS, json=body).json()["choices"][0]["text"] == "one one"
        with pytest.raises(httpx.ConnectError, match="certificate"):
            httpx.get(stack.url + "/health")
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(stack.url.replace("https", "http") + "/health")
        trusted.minimum_version = trusted.maximum_version = ssl.TLSVersion.TLSv1_2
        assert httpx.get(stack.url + "/health", verify=trusted).status_code == 200
        models = stack.corral("models")
        assert (models.returncode, models.stdout.strip()) == (0, "fake"), models.stderr
        assert stack.corral("status").returncode == 0
        chat = stack.corral("chat", "hello")
        assert "hello" in chat.stdout, chat.stderr
        named = stack.corral("models", "--url", stack.url)
        assert named.returncode != 0
        pem = runtime_directory(home) / "gateway.pem"
        assert stat.S_IMODE(pem.stat().st_mode) == 0o600
    assert not pem.exists()
