"""The Hub, by a small server of its protocol on this machine, in processes with their own cache."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"a pickle",
    "tokenizer.json": b"{}",
}
TREE = [{"type": "file", "path": name, "size": len(FILES[name]), "oid": name} for name in FILES]
CALL = """
import sys
from pathlib import Path
from serving.errors import ModelUnavailable
from serving.home import Home
from serving.models import prepare, resolve

action, source = sys.argv[1:]
try:
    if action == "prepare":
        model = prepare(source, Home(Path("/nowhere")), progress=print)
    else:
        model = resolve(source, Home(Path("/nowhere")))
except ModelUnavailable as exc:
    sys.exit(f"{type(exc).__name__}: {exc}")
print("kind", model.kind, model.aliases[0])
print("files", *sorted(path.name for path in model.path.iterdir()))
"""


class Hub(BaseHTTPRequestHandler):
    """One model, org/name, of which `main` is COMMIT."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        name = path.rpartition("/")[2]
        if path.startswith("/api/models/org/name/tree/"):
            self._send(json.dumps(TREE).encode(), body)
        elif path.startswith("/api/models/org/name"):
            siblings = [{"rfilename": name} for name in FILES]
            info = {"id": "org/name", "sha": COMMIT, "siblings": siblings}
            self._send(json.dumps(info).encode(), body)
        elif path.startswith(f"/org/name/resolve/{COMMIT}/") and name in FILES:
            self._send(FILES[name], body)
        else:
            code = "GatedRepo" if "gated" in path else "RepoNotFound"
            self._send(b"{}", body, status=403 if "gated" in path else 404, code=code)

    def _send(self, data: bytes, body: bool, status: int = 200, code: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{len(data)}-{sum(data)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        return


class Client:
    """Calls serving.models in a process that knows `endpoint` as the Hub."""

    def __init__(self, cache: Path, endpoint: str) -> None:
        self._environment = {
            **os.environ,
            "HF_HOME": str(cache),
            "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
        }
        self._environment.pop("HF_HUB_OFFLINE", None)

    def __call__(self, action: str, source: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", CALL, action, source],
            capture_output=True,
            text=True,
            check=False,
            env={**self._environment, **more},
        )


@pytest.fixture
def hub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def nowhere() -> str:
    """An address at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_download_takes_safetensors_and_tokenizer_but_no_pickle(hub: str, tmp_path: Path) -> None:
    done = Client(tmp_path, hub)("prepare", "org/name")
    assert done.returncode == 0, done.stderr
    assert "kind hub org/name" in done.stdout
    assert "files config.json model.safetensors tokenizer.json" in done.stdout


def test_downloaded_model_needs_no_network_any_more(hub: str, nowhere: str, tmp_path: Path) -> None:
    assert Client(tmp_path, hub)("prepare", "org/name").returncode == 0
    offline = Client(tmp_path, nowhere)
    assert "kind hub org/name" in offline("prepare", "org/name").stdout
    assert "kind hub org/name" in offline("resolve", "org/name").stdout


@pytest.mark.parametrize("offline", ["0", "1"])
def test_no_network_and_no_cache_is_said_exactly(
    nowhere: str, tmp_path: Path, offline: str
) -> None:
    done = Client(tmp_path, nowhere)("prepare", "org/name", HF_HUB_OFFLINE=offline)
    assert done.returncode == 1
    assert "org/name is not in the local cache" in done.stderr
    assert "no network" in done.stderr
    assert "give the path of a local directory" in done.stderr


def test_resolving_asks_no_network(hub: str, tmp_path: Path) -> None:
    done = Client(tmp_path, hub)("resolve", "org/name")
    assert "NotPrepared: org/name is not in the local cache" in done.stderr


@pytest.mark.parametrize(
    ("source", "message"),
    [("org/absent", "the Hub has no repository org/absent"), ("org/gated", "accept its terms")],
)
def test_refusal_of_the_hub_says_what_to_do(
    hub: str, tmp_path: Path, source: str, message: str
) -> None:
    done = Client(tmp_path, hub)("prepare", source)
    assert message in done.stderr
