"""Texts a second of an embedding model, by request size and text length."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from benchmarks.gpu.context import Address, Context
from benchmarks.gpu.steps.http import post
from configs import StrictModel

__all__ = ["EmbeddingsConfig", "run"]


class EmbeddingsConfig(StrictModel):
    """A closed loop of clients that each send one batch after the other."""

    kind: Literal["embeddings"] = "embeddings"
    model: str = ""
    """By default the engine's own."""
    batches: tuple[int, ...] = (1, 32, 256)
    """Texts in one request."""
    words: tuple[int, ...] = (32, 200)
    """Length of a text; a common word is about one token."""
    clients: int = Field(8, ge=1)
    warmup_s: float = Field(1.0, ge=0)
    window_s: float = Field(5.0, gt=0)


def run(config: EmbeddingsConfig, context: Context) -> dict[str, Any]:
    """One row for every batch and length: texts/s, tokens/s as the server counts them."""
    engine = context.engines[0]
    rows: list[dict[str, Any]] = []
    for words in config.words:
        for batch in config.batches:
            rows.append(_measure(config, engine, batch, words))
            context.say(str(rows[-1]))
            context.save({"rows": rows})
    return {
        "method": "closed loop; each client's requests that begin after the warm-up, over the "
        "time they take; summed over clients",
        "rows": rows,
    }


@dataclass
class _Client:
    """What one client got after its warm-up."""

    requests: int = 0
    tokens: int = 0
    seconds: float = 0.0
    fault: BaseException | None = None


def _measure(config: EmbeddingsConfig, engine: Address, batch: int, words: int) -> dict[str, Any]:
    clients = [_Client() for _ in range(config.clients)]
    threads = [
        threading.Thread(target=_ask, args=(config, engine, batch, words, seed, client))
        for seed, client in enumerate(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for client in clients:
        if client.fault is not None:
            raise client.fault
    return {
        "batch": batch,
        "words": words,
        "clients": config.clients,
        "requests": sum(client.requests for client in clients),
        "texts_per_s": sum(batch * client.requests / client.seconds for client in clients),
        "tokens_per_s": sum(client.tokens / client.seconds for client in clients),
    }


def _ask(
    config: EmbeddingsConfig, engine: Address, batch: int, words: int, seed: int, client: _Client
) -> None:
    """One request after the other; those that begin after the warm-up count."""
    draw = random.Random(f"{seed}/{batch}/{words}")
    warm = time.perf_counter() + config.warmup_s
    began = 0.0
    try:
        while not client.requests or time.perf_counter() < warm + config.window_s:
            texts = [" ".join(draw.choices(WORDS, k=words)) for _ in range(batch)]
            asked = {
                "model": config.model or engine.model,
                "input": texts,
                "encoding_format": "base64",
            }
            sent = time.perf_counter()
            answer = post(f"{engine.url}/v1/embeddings", asked, headers=engine.headers)
            if sent >= warm:
                began = began or sent
                client.requests += 1
                client.tokens += answer["usage"]["prompt_tokens"]
                client.seconds = time.perf_counter() - began
    except BaseException as exc:
        client.fault = exc


TEXT = (
    "the of and to in is that for it as was with be by on not he his but at are this have from "
    "or had an they which one you were all her she there would their we him been has when who "
    "will no more if out so up said what its about than into them can only other time new some"
)
WORDS = TEXT.split()
