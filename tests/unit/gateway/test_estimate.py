from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.gateway.estimate import TEMPLATE_TOKENS, UNKNOWN_CONTEXT, Bound, upper_bound

CONTEXT = 4096


def bound(path: str, body: dict[str, Any], context: int | None = CONTEXT) -> Bound:
    text = json.dumps(body).encode()
    return upper_bound(
        path, msgspec.json.decode(text, type=dict[str, msgspec.Raw]), len(text), context
    )


@pytest.mark.parametrize(
    ("path", "body", "output"),
    [
        ("/v1/chat/completions", {"max_tokens": 10}, 10),
        ("/v1/chat/completions", {"max_tokens": 10, "max_completion_tokens": 7}, 7),
        ("/v1/chat/completions", {"max_tokens": 10, "n": 3}, 30),
        ("/v1/chat/completions", {}, CONTEXT),
        ("/v1/chat/completions", {"max_tokens": None}, CONTEXT),
        ("/v1/chat/completions", {"max_tokens": 10**9}, CONTEXT),
        ("/v1/completions", {"prompt": "a"}, 16),
        ("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 5, "n": 2}, 20),
        ("/v1/completions", {"prompt": [[1, 2], [3]], "max_tokens": 5}, 10),
        ("/v1/completions", {"prompt": [1, 2, 3], "max_tokens": 5}, 5),
        ("/v1/completions", {"prompt": "a", "max_tokens": 5, "best_of": 4}, 20),
        ("/v1/responses", {"max_output_tokens": 9}, 9),
        ("/v1/messages", {"max_tokens": 9}, 9),
        ("/tokenize", {"prompt": "a"}, 0),
    ],
)
def test_the_most_that_may_be_generated(path: str, body: dict[str, Any], output: int) -> None:
    assert bound(path, body).output == output


def test_a_prompt_has_no_more_tokens_than_bytes_nor_than_fit() -> None:
    body = {"messages": [{"role": "user", "content": "word " * 100}], "max_tokens": 1}
    assert bound("/v1/chat/completions", body).input == len(json.dumps(body)) + TEMPLATE_TOKENS
    body["messages"] = [{"role": "user", "content": "word " * 10_000}]
    assert bound("/v1/chat/completions", body).input == CONTEXT
    assert bound("/v1/chat/completions", {}, None).output == UNKNOWN_CONTEXT


@given(st.text(max_size=50), st.lists(st.text(max_size=50), min_size=1, max_size=20))
def test_a_query_counts_once_for_each_document(query: str, documents: list[str]) -> None:
    pairs = sum(len(query.encode()) + len(document.encode()) + 8 for document in documents)
    assert bound("/v1/rerank", {"query": query, "documents": documents}).embedding >= pairs
    assert bound("/v1/score", {"text_1": query, "text_2": documents}).embedding >= pairs


@given(st.lists(st.text(max_size=50), max_size=20))
def test_embeddings_have_no_more_tokens_than_bytes(texts: list[str]) -> None:
    most = sum(len(text.encode()) + 2 for text in texts)
    assert bound("/v1/embeddings", {"input": texts}).embedding >= most


@pytest.mark.parametrize("value", ["x", True, [1], {"a": 1}, 1.5, -3])
def test_nonsense_is_left_to_the_engine_to_refuse(value: object) -> None:
    assert bound("/v1/chat/completions", {"max_tokens": value, "n": value}).output >= 1
