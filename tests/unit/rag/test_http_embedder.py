"""The HTTP embedder counts tokens itself, batches, and tries again when the endpoint is busy."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from rag.embed.config import HttpEmbedConfig
from rag.embed.http import HttpEmbedder
from rag.errors import EmbedderUnavailable, TextTooLong


def _packed(length: int) -> str:
    return base64.b64encode(np.array([length, 1], "<f4").tobytes()).decode()


class Endpoint(BaseHTTPRequestHandler):
    """Embeds a text as (its length, 1); the first `busy` requests are turned away."""

    busy = 0
    status = 200
    sizes: list[int] = []
    keys: list[str] = []

    def do_POST(self) -> None:
        kind = type(self)
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        kind.keys.append(self.headers.get("Authorization", ""))
        status = 429 if kind.busy else kind.status
        kind.busy = max(0, kind.busy - 1)
        rows = [
            {"index": at, "embedding": _packed(len(text))} for at, text in enumerate(body["input"])
        ]
        kind.sizes.append(len(rows))
        answer = json.dumps({"data": rows[::-1]}).encode()
        self.send_response(status)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[tuple[type[Endpoint], str]]:
    kind = type("Fresh", (Endpoint,), {"sizes": [], "keys": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield kind, f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    found = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    found.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 8}')
    return tmp_path


def test_vectors_come_in_order_normalised_and_in_batches(
    endpoint: tuple[type[Endpoint], str], tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, url = endpoint
    monkeypatch.setenv("CORRAL_API_KEY", "key")
    embedder = HttpEmbedder(HttpEmbedConfig(url=url), tokenizer)
    assert (embedder.dimension, embedder.max_tokens) == (2, 8)
    found = embedder.encode(["x" * (at + 1) for at in range(300)])
    assert found.shape == (300, 2)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    assert (np.diff(found[:, 0]) >= 0).all()
    assert sum(kind.sizes) == 301
    assert max(kind.sizes) <= 128
    assert set(kind.keys) == {"Bearer key"}


def test_a_busy_endpoint_is_asked_again(
    endpoint: tuple[type[Endpoint], str], tokenizer: Path
) -> None:
    kind, url = endpoint
    kind.busy = 2
    assert HttpEmbedder(HttpEmbedConfig(url=url), tokenizer).dimension == 2
    assert len(kind.sizes) == 3


def test_a_refusal_is_an_error(endpoint: tuple[type[Endpoint], str], tokenizer: Path) -> None:
    kind, url = endpoint
    kind.status = 401
    with pytest.raises(EmbedderUnavailable, match="401"):
        HttpEmbedder(HttpEmbedConfig(url=url), tokenizer)


def test_nothing_listens(tokenizer: Path) -> None:
    with pytest.raises(EmbedderUnavailable, match="Is it running"):
        HttpEmbedder(HttpEmbedConfig(url="http://127.0.0.1:9/v1"), tokenizer)


def test_a_long_text_is_never_truncated(
    endpoint: tuple[type[Endpoint], str], tokenizer: Path
) -> None:
    embedder = HttpEmbedder(HttpEmbedConfig(url=endpoint[1]), tokenizer)
    with pytest.raises(TextTooLong, match="9 tokens"):
        embedder.encode(["one", "word " * 9])
