"""The wire format of embeddings, rerank and score."""

from __future__ import annotations

import base64
import json
import struct
from array import array
from typing import Any

import pytest

from serving.engines.pooling_api import (
    EmbeddingRequest,
    Pairs,
    RequestError,
    RerankRequest,
    ScoreRequest,
    decode,
    embeddings_answer,
    rerank_answer,
    score_answer,
    texts_and_ids,
)


def embedding_request(**fields: Any) -> EmbeddingRequest:
    return decode(EmbeddingRequest, json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        ("", [""]),
    ],
)
def test_every_form_of_input_becomes_a_list(given: Any, inputs: list[Any]) -> None:
    assert texts_and_ids(embedding_request(input=given).input) == inputs


@pytest.mark.parametrize("given", [[], ["a", 1], [1, [2]], ["a", [1]]])
def test_empty_and_mixed_inputs_are_refused(given: Any) -> None:
    with pytest.raises(RequestError) as caught:
        texts_and_ids(embedding_request(input=given).input)
    assert (caught.value.status, caught.value.param) == (400, "input")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{}", "input"),
        (b'{"input": 3}', "input"),
        (b'{"input": [true]}', "input"),
        (b'{"input": [[1, "a"]]}', "input"),
        (b'{"input": "a", "dimensions": 0}', "dimensions"),
        (b'{"input": "a", "encoding_format": "hex"}', "encoding_format"),
        (b'{"input": "a", "endianness": "big"}', "endianness"),
        (b'{"input": "a", "truncate_prompt_tokens": -2}', "truncate_prompt_tokens"),
        (b'{"input": "a", "model": 1.5}', "model"),
        (b"[]", None),
        (b"1.5", None),
        (b"{", None),
        (b"", None),
        (b'{"input": "\xff"}', None),
    ],
)
def test_malformed_bodies_are_400_and_name_the_field(body: bytes, param: str | None) -> None:
    with pytest.raises(RequestError) as caught:
        decode(EmbeddingRequest, body)
    error = json.loads(caught.value.body)["error"]
    assert caught.value.status == 400
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error.keys() == {"message", "type", "param", "code"}


def test_unknown_fields_are_ignored() -> None:
    assert embedding_request(input="a", priority=3).input == "a"


def test_base64_vectors_are_little_endian_float32() -> None:
    body = embeddings_answer("m", "1", [array("f", [1.5, -2.0])], 3, base64_encoded=True)
    answer = json.loads(body)
    assert struct.unpack("<2f", base64.b64decode(answer["data"][0]["embedding"])) == (1.5, -2.0)
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


def test_float_vectors_keep_the_order_of_the_inputs() -> None:
    vectors = [array("f", [1.0]), array("f", [2.0])]
    answer = json.loads(embeddings_answer("m", "7", vectors, 2, base64_encoded=False))
    assert (answer["object"], answer["model"], answer["id"]) == ("list", "m", "embd-7")
    assert answer["data"] == [
        {"object": "embedding", "index": 0, "embedding": [1.0]},
        {"object": "embedding", "index": 1, "embedding": [2.0]},
    ]


@pytest.mark.parametrize(
    ("left", "right"),
    [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")],
)
def test_score_takes_each_name_for_its_two_sides(left: str, right: str) -> None:
    body = json.dumps({left: "q", right: ["a", {"text": "b"}]}).encode()
    assert decode(ScoreRequest, body).sides() == Pairs(["q"], ["a", "b"], left, right)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"text_1": "a"}, None),
        ({"text_1": "a", "documents": "b"}, None),
        ({"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}, "text_1"),
        ({"text_1": ["a", "b"], "text_2": "a"}, "text_1"),
        ({"text_1": [], "text_2": "a"}, "text_1"),
        ({"text_1": "a", "text_2": []}, "text_2"),
        ({"text_1": "a", "text_2": [{"image": "b"}]}, "text_2"),
    ],
)
def test_unusable_score_sides_are_refused(fields: dict[str, Any], param: str | None) -> None:
    with pytest.raises(RequestError) as caught:
        decode(ScoreRequest, json.dumps(fields).encode()).sides()
    assert (caught.value.status, caught.value.param) == (400, param)


def test_scores_keep_the_order_of_the_pairs() -> None:
    answer = json.loads(score_answer("m", "2", [0.25, 0.75], 9))
    assert answer["data"] == [
        {"index": 0, "object": "score", "score": 0.25},
        {"index": 1, "object": "score", "score": 0.75},
    ]


def rerank(scores: list[float], **fields: Any) -> list[dict[str, Any]]:
    texts = [f"d{at}" for at in range(len(scores))]
    request = decode(
        RerankRequest, json.dumps({"query": "q", "documents": texts, **fields}).encode()
    )
    results = json.loads(rerank_answer("m", "3", request, texts, scores, 5))["results"]
    assert isinstance(results, list)
    return results


def test_rerank_sorts_best_first_and_keeps_ties_in_order() -> None:
    assert [one["index"] for one in rerank([0.1, 0.9, 0.5, 0.9])] == [1, 3, 2, 0]


@pytest.mark.parametrize(("top_n", "count"), [(1, 1), (2, 2), (9, 3), (0, 3), (None, 3)])
def test_rerank_returns_at_most_top_n(top_n: int | None, count: int) -> None:
    assert len(rerank([0.1, 0.2, 0.3], top_n=top_n)) == count


def test_rerank_returns_documents_unless_told_not_to() -> None:
    assert rerank([0.5]) == [{"index": 0, "relevance_score": 0.5, "document": {"text": "d0"}}]
    assert rerank([0.5], return_documents=False) == [{"index": 0, "relevance_score": 0.5}]


def test_negative_top_n_is_refused() -> None:
    with pytest.raises(RequestError) as caught:
        rerank([0.5], top_n=-1)
    assert caught.value.param == "top_n"
