"""One running stack with the real engine, shared by the whole session, and clients for it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.integration.stack import Stack, make_home, serve

MODEL = "smollm2-135m"
EMBEDDER = "all-minilm-l6-v2"
MAX_LORAS = 3
MAX_CPU_LORAS = 4
TIMEOUT_S = 120.0
RUNS = {
    "evaluation.generate": 0,
    "evaluation.max_questions": 4,
    "evaluation.robustness": [],
    "evaluation.gate": [{"metric": "loss", "against": "base"}],
    "tracking.enabled": False,
}
"""Of fine-tuning jobs: little is measured afterwards, since it takes time."""


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """`local.yaml` in float32, so that greedy answers are exact, and with room for few adapters."""
    settings = {
        "models.0.engine.dtype": "float32",
        "models.0.engine.lora.max_loras": MAX_LORAS,
        "models.0.engine.lora.max_cpu_loras": MAX_CPU_LORAS,
        "gateway.max_body_mib": 1,
        "finetuning.settings": json.dumps(RUNS),
    }
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    with serve(make_home(tmp_path_factory.mktemp("corral")), *options) as running:
        yield running


@pytest.fixture(scope="session")
def client(stack: Stack) -> Iterator[OpenAI]:
    """The `openai` package as it comes; no retries, so that every error shows."""
    with OpenAI(
        base_url=f"{stack.url}/v1", api_key=stack.key, timeout=TIMEOUT_S, max_retries=0
    ) as openai:
        yield openai


@pytest.fixture
async def async_client(stack: Stack) -> AsyncIterator[AsyncOpenAI]:
    """The asynchronous one."""
    async with AsyncOpenAI(
        base_url=f"{stack.url}/v1", api_key=stack.key, timeout=TIMEOUT_S, max_retries=0
    ) as openai:
        yield openai


@pytest.fixture(scope="session")
def http(stack: Stack) -> Iterator[httpx.Client]:
    """Plain HTTP, for what no package sends."""
    with httpx.Client(base_url=stack.url, headers=stack.headers, timeout=TIMEOUT_S) as plain:
        yield plain


@pytest.fixture(scope="session")
def weights(stack: Stack) -> Path:
    """The directory of the generating model."""
    return stack.home.models / MODEL


@pytest.fixture(scope="session")
def trained(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEFT adapter of rank 8 that really was trained: answers like a pirate."""
    from tests.integration.reference import train

    return train(weights, tmp_path_factory.mktemp("adapter") / "pirate")
