"""Names to targets: models, adapters, endpoints; and the cards of /v1/models."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from serving.adapters import AdapterStore
from serving.config import (
    EmbeddingConfig,
    EngineConfig,
    FakeConfig,
    LoraConfig,
    ModelConfig,
    RerankConfig,
    VllmConfig,
)
from serving.errors import AdapterNotFound
from serving.gateway.directory import ENDPOINTS, Directory, build_directory
from serving.gateway.errors import ApiError
from serving.home import Home
from tests.unit.gateway.in_process import StubPool, write_adapter

CHAT, EMBEDDINGS, RERANK = "/v1/chat/completions", "/v1/embeddings", "/v1/rerank"


def _directory(root: Path, **engines: EngineConfig) -> Directory:
    models = tuple(ModelConfig(name=name, engine=engine) for name, engine in engines.items())
    store = AdapterStore(Home(root), models)
    return build_directory(models, lambda _: StubPool([]), store, created=7)


def _vllm(task: Literal["generate", "pooling"] = "generate") -> VllmConfig:
    return VllmConfig(task=task, lora=LoraConfig(max_loras=1))


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return _directory(
        tmp_path, llama=_vllm(), minilm=EmbeddingConfig(), crosser=RerankConfig(), fake=FakeConfig()
    )


def _refusal(directory: Directory, name: str | None, path: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        directory.resolve(name, path)
    return caught.value


@pytest.mark.parametrize(
    ("engine", "answered", "refused"),
    [
        (_vllm(), {CHAT, "/v1/messages", "/tokenize"}, {EMBEDDINGS, RERANK}),
        (_vllm("pooling"), {EMBEDDINGS, RERANK, "/v1/score", "/tokenize"}, {CHAT}),
        (EmbeddingConfig(), {EMBEDDINGS, RERANK, "/v1/score", "/detokenize"}, {CHAT}),
        (RerankConfig(), {RERANK, "/v1/score"}, {CHAT, EMBEDDINGS, "/tokenize"}),
        (FakeConfig(), set(ENDPOINTS), set()),
    ],
    ids=["vllm", "pooling", "embedding", "rerank", "fake"],
)
def test_a_kind_of_engine_answers_its_endpoints(
    tmp_path: Path, engine: EngineConfig, answered: set[str], refused: set[str]
) -> None:
    directory = _directory(tmp_path, m=engine)
    for path in answered:
        assert directory.resolve("m", path).served.config.name == "m"
    for path in refused:
        assert _refusal(directory, "m", path).status == 400


def test_an_endpoint_of_another_kind_names_the_models_that_answer_it(directory: Directory) -> None:
    error = _refusal(directory, "minilm", CHAT)
    assert (error.status, error.param) == (400, "model")
    assert error.message.endswith("try llama, fake")


def test_an_endpoint_that_no_model_answers_says_so(tmp_path: Path) -> None:
    error = _refusal(_directory(tmp_path, minilm=EmbeddingConfig()), "minilm", CHAT)
    assert error.message.endswith("no configured model does")


def test_an_adapter_is_held_to_its_models_endpoints(directory: Directory) -> None:
    assert _refusal(directory, "llama:pirate", EMBEDDINGS).status == 400


@pytest.mark.parametrize(
    ("name", "near"),
    [("lama", "llama"), ("MiniLM", "minilm"), ("llama-3", "llama"), ("fak:pirate", "fake")],
)
def test_an_unknown_model_is_404_with_the_near_name(
    directory: Directory, name: str, near: str
) -> None:
    error = _refusal(directory, name, CHAT)
    assert (error.status, error.code) == (404, "model_not_found")
    assert f"did you mean {near}" in error.message


@pytest.mark.parametrize("name", ["", "zzzzzz", ":", ":x", "@"])
def test_without_a_near_name_all_are_listed(directory: Directory, name: str) -> None:
    assert "served: llama, minilm, crosser, fake" in _refusal(directory, name, CHAT).message


def test_a_missing_model_is_the_only_one_that_answers_the_endpoint(directory: Directory) -> None:
    one = directory.models["llama"].config, directory.models["minilm"].config
    pair = build_directory(one, lambda _: StubPool([]), directory.adapters, created=7)
    assert pair.resolve(None, CHAT).served.config.name == "llama"
    assert pair.resolve(None, EMBEDDINGS).served.config.name == "minilm"
    assert "llama, fake" in _refusal(directory, None, CHAT).message


def test_adapters_resolve_to_a_version_at_once_when_it_appears(
    directory: Directory, tmp_path: Path
) -> None:
    with pytest.raises(AdapterNotFound):
        directory.resolve("fake:pirate", CHAT)
    for version in ("v1", "v2"):
        write_adapter(tmp_path, "pirate", version)
    live = directory.resolve("fake:pirate", CHAT).adapter
    pinned = directory.resolve("fake:pirate@v1", CHAT).adapter
    assert live is not None
    assert pinned is not None
    assert (live.engine_name, pinned.engine_name) == ("fake:pirate@v2", "fake:pirate@v1")
    assert pinned.path == tmp_path / "adapters" / "pirate" / "v1"


def test_cards_list_models_then_adapters_with_their_parent(
    directory: Directory, tmp_path: Path
) -> None:
    write_adapter(tmp_path, "pirate", "v1")
    write_adapter(tmp_path, "stranger", "v1", base="another-model")
    cards = directory.cards()
    assert [card["id"] for card in cards] == [
        *("llama", "minilm", "crosser", "fake"),
        *("fake:pirate", "fake:pirate@v1"),
    ]
    assert directory.card("fake:pirate") == cards[4]
    assert (cards[4]["root"], cards[4]["parent"]) == ("fake:pirate@v1", "fake")
    assert cards[0] == {
        "id": "llama",
        "object": "model",
        "created": 7,
        "owned_by": "corral",
        "root": "llama",
        "parent": None,
    }


def test_a_disabled_adapter_has_no_card(directory: Directory, tmp_path: Path) -> None:
    write_adapter(tmp_path, "pirate", "v1")
    directory.adapters.disable("pirate")
    assert [card["id"] for card in directory.cards()][4:] == []
    with pytest.raises(ApiError) as caught:
        directory.card("fake:pirate")
    assert caught.value.status == 404
