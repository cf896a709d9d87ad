"""The pooling engines' ASGI app and tokenising, on a word-level vocabulary and no model."""

from __future__ import annotations

import asyncio
import logging
from array import array
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
from starlette.types import Message
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from serving.engines.batching import BatcherClosed
from serving.engines.pooling_api import Pairs, RequestError
from serving.engines.pooling_app import PoolingApp, Scores
from serving.engines.pooling_metrics import PoolingMetrics
from serving.engines.pooling_tokens import Limits, PoolingTokenizer, Tokens

WORDS = ["[UNK]", "[CLS]", "[SEP]", "a", "b", "c"]


def word_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(WordLevel({word: at for at, word in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    tokenizer.enable_padding(length=64)
    tokenizer.enable_truncation(4)
    return tokenizer


class Backend:
    """A text's vector is its token ids; a document's score is its length in tokens."""

    def __init__(self) -> None:
        self.tokens = PoolingTokenizer(word_tokenizer(), max_model_len=8)
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()

    def prompted(self, text: str) -> str:
        return text

    async def embed(self, inputs: Sequence[Tokens], dimensions: int | None) -> list[array[float]]:
        self.entered.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.failure is not None:
            raise self.failure
        return [array("f", one.ids) for one in inputs]

    async def score(self, pairs: Pairs, limits: Limits) -> Scores:
        inputs = await self.tokens.encode(list(pairs.documents), limits, pairs.document_param)
        return Scores([float(len(one.ids)) for one in inputs], 1)


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def app(backend: Backend) -> PoolingApp:
    return PoolingApp("tiny", backend, PoolingMetrics())


@pytest.fixture
async def client(app: PoolingApp) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as made:
        yield made


async def embed(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await client.post("/v1/embeddings", json={"input": "a b", **fields})


async def test_special_tokens_are_added_unless_told_not_to(client: httpx.AsyncClient) -> None:
    answer = (await embed(client)).json()
    assert answer["data"][0]["embedding"] == [1, 3, 4, 2]
    assert answer["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    plain = (await embed(client, add_special_tokens=False)).json()
    assert plain["data"][0]["embedding"] == [3, 4]


async def test_token_ids_are_used_as_they_are(client: httpx.AsyncClient) -> None:
    answer = (await embed(client, input=[[5, 4], [3]])).json()
    assert [one["embedding"] for one in answer["data"]] == [[5, 4], [3]]


@pytest.mark.parametrize("ids", [[6], [-1], [3, 99]])
async def test_token_ids_outside_the_vocabulary_are_400(
    client: httpx.AsyncClient, ids: list[int]
) -> None:
    answer = await embed(client, input=ids)
    assert answer.status_code == 400
    assert "between 0 and 5" in answer.json()["error"]["message"]


@pytest.mark.parametrize("given", ["a " * 7, [3] * 9])
async def test_over_long_input_is_400_naming_both_lengths(
    client: httpx.AsyncClient, given: Any
) -> None:
    answer = await embed(client, input=given)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "context_length_exceeded")
    assert "8 tokens" in error["message"]
    assert "9 tokens" in error["message"]


@pytest.mark.parametrize(
    ("fields", "ids"),
    [
        ({"truncate_prompt_tokens": -1}, [1, 3, 4, 5, 3, 4, 5, 2]),
        ({"truncate_prompt_tokens": 4}, [1, 3, 4, 2]),
        ({"truncate_prompt_tokens": 4, "truncation_side": "left"}, [1, 4, 5, 2]),
        ({"truncate_prompt_tokens": 2, "input": [3, 4, 5]}, None),
        (
            {"truncate_prompt_tokens": 3, "input": [3, 4, 5, 3], "truncation_side": "left"},
            [4, 5, 3],
        ),
        ({"truncate_prompt_tokens": 9}, None),
        ({"truncate_prompt_tokens": 0}, None),
    ],
)
async def test_truncation_keeps_the_special_tokens(
    client: httpx.AsyncClient, fields: dict[str, Any], ids: list[int] | None
) -> None:
    answer = await embed(client, **{"input": "a b c a b c a b c", **fields})
    assert answer.status_code == (200 if ids else 400)
    if ids:
        assert answer.json()["data"][0]["embedding"] == ids
    else:
        assert answer.json()["error"]["param"] == "truncate_prompt_tokens"


async def test_truncating_one_request_leaves_the_next_whole(client: httpx.AsyncClient) -> None:
    await embed(client, input="a b c", truncate_prompt_tokens=3)
    assert (await embed(client, input="a b c")).json()["usage"]["prompt_tokens"] == 5


async def test_long_requests_are_tokenised_alike(client: httpx.AsyncClient) -> None:
    answer = (await embed(client, input=["a b"] * 3000)).json()
    assert answer["usage"]["prompt_tokens"] == 12000
    assert all(one["embedding"] == [1, 3, 4, 2] for one in answer["data"])
    assert [one["index"] for one in answer["data"]] == list(range(3000))


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank", "/v1/score", "/tokenize"])
async def test_an_unknown_model_is_404(client: httpx.AsyncClient, path: str) -> None:
    fields = {"input": "a", "query": "a", "documents": ["a"], "text_1": "a", "text_2": "a"}
    answer = await client.post(path, json={"model": "other", "prompt": "a", **fields})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v2/rerank"])
async def test_rerank_paths(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, json={"query": "a", "documents": ["b", "b b"], "top_n": 1})
    assert [one["index"] for one in answer.json()["results"]] == [1]


@pytest.mark.parametrize("path", ["/v1/score", "/score"])
async def test_score_paths(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, json={"text_1": "a", "text_2": ["b", "b b"]})
    assert [one["score"] for one in answer.json()["data"]] == [3.0, 4.0]


async def test_documents_are_cut_to_max_tokens_per_doc(client: httpx.AsyncClient) -> None:
    fields = {"query": "a", "documents": ["a b c a b c a b c", "a"], "max_tokens_per_doc": 2}
    answer = (await client.post("/rerank", json=fields)).json()
    assert [one["relevance_score"] for one in answer["results"]] == [4.0, 3.0]


async def test_tokenize_and_detokenize_are_inverse(client: httpx.AsyncClient) -> None:
    answer = (
        await client.post("/tokenize", json={"prompt": "a c", "return_token_strs": True})
    ).json()
    assert answer == {
        "count": 4,
        "max_model_len": 8,
        "tokens": [1, 3, 5, 2],
        "token_strs": ["[CLS]", "a", "c", "[SEP]"],
    }
    text = (await client.post("/detokenize", json={"tokens": answer["tokens"]})).json()
    assert text == {"prompt": "[CLS] a c [SEP]"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/v1/embeddings", 405),
        ("POST", "/health", 405),
        ("GET", "/health", 200),
    ],
)
async def test_routes(client: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    assert (await client.request(method, path)).status_code == status


async def test_models_lists_the_one_model(client: httpx.AsyncClient) -> None:
    (model,) = (await client.get("/v1/models")).json()["data"]
    assert (model["id"], model["parent"], model["max_model_len"]) == ("tiny", None, 8)


async def test_metrics_count_requests_by_status(client: httpx.AsyncClient) -> None:
    await embed(client)
    await embed(client, input=[])
    text = (await client.get("/metrics")).text
    assert 'corral_pooling_requests_total{route="/v1/embeddings",status="200"} 1.0' in text
    assert 'corral_pooling_requests_total{route="/v1/embeddings",status="400"} 1.0' in text


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (RequestError("no", status=418), 418),
        (BatcherClosed("stopping"), 503),
        (RuntimeError("out of memory"), 500),
    ],
)
async def test_failures_of_the_model_are_in_the_envelope(
    client: httpx.AsyncClient,
    backend: Backend,
    caplog: pytest.LogCaptureFixture,
    failure: Exception,
    status: int,
) -> None:
    backend.failure = failure
    with caplog.at_level(logging.ERROR):
        answer = await client.post(
            "/v1/embeddings", json={"input": "a"}, headers={"X-Request-Id": "r-1"}
        )
    assert answer.status_code == status
    assert str(failure) in answer.json()["error"]["message"]
    assert ("r-1" in caplog.text) == (status == 500)


async def test_the_callers_request_id_is_in_the_answer(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/v1/embeddings", json={"input": "a"}, headers={"X-Request-Id": "r-2"}
    )
    assert answer.json()["id"] == "embd-r-2"


async def test_a_client_that_goes_away_cancels_its_work(app: PoolingApp, backend: Backend) -> None:
    backend.gate.clear()
    gone = asyncio.Event()
    sent: list[Message] = []
    chunks = [b'{"input"', b': "a"}']

    async def receive() -> Message:
        if chunks:
            chunk = chunks.pop(0)
            return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/embeddings", "headers": []}
    serving = asyncio.create_task(app(scope, receive, send))
    async with asyncio.timeout(10):
        await backend.entered.wait()
        gone.set()
        await serving
    assert backend.cancelled.is_set()
    assert sent[0]["status"] == 499
