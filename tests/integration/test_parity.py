"""Greedy answers are those of transformers and peft, token by token, in float32.

Sums in another order may swap two logits that are all but equal: one prompt of
each set may leave the reference at a gap below 1e-3, for the runner-up.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from tests.integration.adapters import publish
from tests.integration.conftest import MODEL
from tests.integration.reference import Greedy, Reference, reference
from tests.integration.stack import Stack

# Training counts towards the first test that needs it.
pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

TOKENS = 16
QUESTIONS = (
    "What is the capital of Spain?",
    "Write a Python function that adds two numbers.",
    "Wie heißt die Hauptstadt von Österreich?",
    "List three colours, separated by commas.",
    "1, 2, 4, 8, … what comes next? 🤔",
)
TEXTS = (
    "The capital of France is",
    "def fibonacci(n):\n",
    "Once upon a time, in a small village,",
    '{"name": "Alice", "age":',
    "2 + 2 = 4\n3 + 3 = 6\n4 + 4 =",
)


def test_base_model_answers_as_transformers_does(weights: Path, client: OpenAI) -> None:
    assert sum(_near_ties(reference(weights), client, MODEL)) <= 1


def test_trained_adapter_answers_as_peft_does(
    weights: Path, trained: Path, stack: Stack, client: OpenAI
) -> None:
    publish(stack.home, "parity", "1", trained)
    assert sum(_near_ties(reference(weights, trained), client, f"{MODEL}:parity")) <= 1
    base, pirate = (_chat(client, name, QUESTIONS[0])[1] for name in (MODEL, f"{MODEL}:parity"))
    assert pirate != base


def _near_ties(model: Reference, client: OpenAI, name: str) -> list[int]:
    """How many near ties each prompt needed; at most one a prompt."""
    pairs = [(model.chat(text, TOKENS), _chat(client, name, text)) for text in QUESTIONS]
    pairs += [(model.complete(text, TOKENS), _complete(client, name, text)) for text in TEXTS]
    return [_compare(wanted, *got) for wanted, got in pairs]


def _compare(wanted: Greedy, prompt_ids: list[int], token_ids: list[int]) -> int:
    assert prompt_ids == wanted.prompt_ids
    return wanted.near_ties(token_ids)


def _chat(client: OpenAI, name: str, question: str) -> tuple[list[int], list[int]]:
    """Token ids of the prompt and of the answer."""
    answer: Any = client.chat.completions.create(
        model=name,
        messages=[{"role": "user", "content": question}],
        max_tokens=TOKENS,
        temperature=0,
        extra_body={"return_token_ids": True},
    )
    return answer.prompt_token_ids, answer.choices[0].token_ids


def _complete(client: OpenAI, name: str, text: str) -> tuple[list[int], list[int]]:
    answer: Any = client.completions.create(
        model=name,
        prompt=text,
        max_tokens=TOKENS,
        temperature=0,
        extra_body={"return_token_ids": True, "add_special_tokens": False},
    )
    return answer.choices[0].prompt_token_ids, answer.choices[0].token_ids
