"""The ASGI app of the pooling engines: routes, errors, and clients that go away.

    POST /v1/embeddings                     GET /v1/models
    POST /v1/rerank  /rerank  /v2/rerank    GET /health    the process answers
    POST /v1/score   /score                 GET /metrics   Prometheus text
    POST /tokenize   /detokenize

Plain ASGI and a dictionary of routes: a framework would cost more than the rest
of the event loop's work on a short request. Knows no model: a `PoolingBackend`
computes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import msgspec
from starlette.types import Receive, Scope, Send

from serving.engines.batching import BatcherClosed
from serving.engines.pooling_api import (
    DetokenizeRequest,
    EmbeddingRequest,
    Pairs,
    RequestError,
    RerankRequest,
    ScoreRequest,
    ScoringRequest,
    TokenizeRequest,
    Vector,
    decode,
    embeddings_answer,
    rerank_answer,
    score_answer,
    texts_and_ids,
)
from serving.engines.pooling_metrics import PoolingMetrics
from serving.engines.pooling_tokens import Limits, PoolingTokenizer, Tokens

__all__ = ["PoolingApp", "PoolingBackend", "Scores"]

logger = logging.getLogger(__name__)

INLINE_FLOATS = 20_000
"""Answers with more numbers (about 2 ms to write) are written on another thread."""

R = TypeVar("R")


@dataclass(frozen=True)
class Scores:
    """One score for each document, in order, and the tokens that were read for them."""

    scores: list[float]
    tokens: int


class PoolingBackend(Protocol):
    """What an engine computes. Raises RequestError for what it cannot."""

    @property
    def tokens(self) -> PoolingTokenizer: ...

    def prompted(self, text: str) -> str:
        """`text` as the model wants it: behind its default prompt, if it has one."""
        ...

    async def embed(self, inputs: Sequence[Tokens], dimensions: int | None) -> Sequence[Vector]:
        """One vector for each input, of the model's size or `dimensions` long."""
        ...

    async def score(self, pairs: Pairs, limits: Limits) -> Scores:
        """How well each document answers its query; higher is better."""
        ...


class _ClientGone(Exception):
    """The client closed the connection before the answer was ready."""


class PoolingApp:
    """Answers for one model under its public name."""

    def __init__(self, model: str, backend: PoolingBackend, metrics: PoolingMetrics) -> None:
        self._model, self._backend, self._metrics = model, backend, metrics
        self._created = int(time.time())
        self._post: dict[str, Callable[[bytes, str], Awaitable[bytes]]] = {
            "/v1/embeddings": self._embeddings,
            "/tokenize": self._tokenize,
            "/detokenize": self._detokenize,
            **dict.fromkeys(("/v1/rerank", "/rerank", "/v2/rerank"), self._rerank),
            **dict.fromkeys(("/v1/score", "/score"), self._score),
        }
        self._get: dict[str, Callable[[], bytes]] = {
            "/health": lambda: b"",
            "/metrics": lambda: metrics.text().encode(),
            "/v1/models": self._models,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        assert scope["type"] == "http", "only HTTP is served"
        path = scope["path"]
        try:
            body = await self._answer(scope, receive)
            status = 200
        except RequestError as exc:
            status, body = exc.status, exc.body
        except _ClientGone:
            status, body = 499, b""
        known = path in self._post or path in self._get
        self._metrics.answered(path if known else "other", status)
        kind = b"text/plain; version=0.0.4; charset=utf-8"
        if path != "/metrics" or status != 200:
            kind = b"application/json"
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> bytes:
        path, method = scope["path"], scope["method"]
        if path in self._get and method in ("GET", "HEAD"):
            return self._get[path]()
        if path not in self._post or method != "POST":
            known = path in self._post or path in self._get
            raise RequestError(f"{method} {path} is not served here", status=405 if known else 404)
        body = await _body(receive)
        request_id = _request_id(scope)
        try:
            return await _while_connected(receive, self._post[path](body, request_id))
        except BatcherClosed as exc:
            raise RequestError(f"{exc}; try again", status=503) from exc
        except (RequestError, _ClientGone):
            raise
        except Exception as exc:
            logger.exception("request %s to %s failed", request_id, path)
            raise RequestError(
                f"the model failed on this request: {exc}. The log has more under the "
                f"request id {request_id}",
                status=500,
            ) from exc

    async def _embeddings(self, body: bytes, request_id: str) -> bytes:
        request = decode(EmbeddingRequest, body)
        self._check_model(request.model)
        texts = [
            self._backend.prompted(one) if isinstance(one, str) else one
            for one in texts_and_ids(request.input)
        ]
        limits = Limits(
            request.truncate_prompt_tokens,
            request.truncation_side or "right",
            request.add_special_tokens,
        )
        inputs = await self._backend.tokens.encode(texts, limits, "input")
        vectors = await self._backend.embed(inputs, request.dimensions)
        count = sum(len(one.ids) for one in inputs)
        encoded = request.encoding_format == "base64"

        def write() -> bytes:
            return embeddings_answer(
                self._model, request_id, vectors, count, base64_encoded=encoded
            )

        numbers = 0 if encoded else len(vectors) * len(vectors[0].tobytes()) // 4
        return await asyncio.to_thread(write) if numbers > INLINE_FLOATS else write()

    async def _rerank(self, body: bytes, request_id: str) -> bytes:
        request = decode(RerankRequest, body)
        pairs = Pairs.of(request.query, request.documents, "query", "documents")
        scored = await self._scores(pairs, request)
        return rerank_answer(
            self._model, request_id, request, pairs.documents, scored.scores, scored.tokens
        )

    async def _score(self, body: bytes, request_id: str) -> bytes:
        request = decode(ScoreRequest, body)
        scored = await self._scores(request.sides(), request)
        return score_answer(self._model, request_id, scored.scores, scored.tokens)

    async def _scores(self, pairs: Pairs, request: ScoringRequest) -> Scores:
        self._check_model(request.model)
        queries, documents = pairs.queries, pairs.documents
        if request.max_tokens_per_query:
            queries = await self._backend.tokens.shorten(queries, request.max_tokens_per_query)
        if request.max_tokens_per_doc:
            documents = await self._backend.tokens.shorten(documents, request.max_tokens_per_doc)
        limits = Limits(request.truncate_prompt_tokens, request.truncation_side or "right")
        short = Pairs(queries, documents, pairs.query_param, pairs.document_param)
        return await self._backend.score(short, limits)

    async def _tokenize(self, body: bytes, request_id: str) -> bytes:
        request = decode(TokenizeRequest, body)
        self._check_model(request.model)
        tokens = self._backend.tokens
        ids = await asyncio.to_thread(
            tokens.text_tokens, request.prompt, request.add_special_tokens
        )
        return msgspec.json.encode(
            {
                "count": len(ids),
                "max_model_len": tokens.max_model_len,
                "tokens": ids,
                "token_strs": tokens.token_strings(ids) if request.return_token_strs else None,
            }
        )

    async def _detokenize(self, body: bytes, request_id: str) -> bytes:
        request = decode(DetokenizeRequest, body)
        self._check_model(request.model)
        return msgspec.json.encode({"prompt": self._backend.tokens.text(request.tokens)})

    def _models(self) -> bytes:
        model = {
            "id": self._model,
            "object": "model",
            "created": self._created,
            "owned_by": "corral",
            "root": self._model,
            "parent": None,
            "max_model_len": self._backend.tokens.max_model_len,
        }
        return msgspec.json.encode({"object": "list", "data": [model]})

    def _check_model(self, named: str | None) -> None:
        if named is not None and named != self._model:
            raise RequestError(
                f"The model {named!r} does not exist here; this is {self._model!r}.",
                status=404,
                param="model",
                code="model_not_found",
            )


async def _while_connected(receive: Receive, work: Awaitable[R]) -> R:
    """The result of `work`, which is cancelled when the client goes away: _ClientGone."""
    doing = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((doing, watching), return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise _ClientGone
        return doing.result()
    finally:
        watching.cancel()
        if doing.cancel():
            with contextlib.suppress(asyncio.CancelledError):
                await doing


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(receive: Receive) -> bytes:
    chunks: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientGone
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _request_id(scope: Scope) -> str:
    """The caller's `X-Request-Id`, or a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return bytes(value).decode("latin-1")
    return uuid.uuid4().hex


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
