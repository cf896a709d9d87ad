"""The fake engine's ASGI app: bare ASGI, since a router would cost more than a token."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.types import Message, Receive, Scope, Send

from serving.engines.fake.pace import Turn
from serving.engines.fake.pooling import (
    DetokenizeRequest,
    EmbeddingRequest,
    RerankRequest,
    ScoreRequest,
    TokenizeRequest,
    Vocabulary,
)
from serving.engines.fake.requests import (
    Answer,
    ApiError,
    Ask,
    ChatRequest,
    CompletionRequest,
    CountRequest,
    GenerateRequest,
    MessagesRequest,
    Named,
    ResponsesRequest,
    parse_body,
)
from serving.engines.fake.wire import ChatWire, CompletionWire, Wire
from serving.engines.fake.wire_events import MessagesWire, ResponsesWire

if TYPE_CHECKING:
    from serving.engines.fake.engine import FakeEngine

__all__ = ["FakeApp"]

R = TypeVar("R", bound=Named)
WireFactory = Callable[[Ask, Answer, str], Wire]
GENERATE: dict[str, tuple[type[GenerateRequest], WireFactory]] = {
    "/v1/chat/completions": (ChatRequest, ChatWire),
    "/v1/completions": (CompletionRequest, CompletionWire),
    "/v1/responses": (ResponsesRequest, ResponsesWire),
    "/v1/messages": (MessagesRequest, MessagesWire),
}
POOL: dict[str, type[EmbeddingRequest] | type[RerankRequest] | type[ScoreRequest]] = {
    "/v1/embeddings": EmbeddingRequest,
    "/v1/rerank": RerankRequest,
    "/rerank": RerankRequest,
    "/v1/score": ScoreRequest,
    "/score": ScoreRequest,
}
STREAM_START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache"),
    ],
}


class FakeApp:
    """Answers OpenAI's, Anthropic's and vLLM's routes for one engine."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self._vocabulary = Vocabulary()
        self._created = int(time.time())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        try:
            if scope["method"] == "GET":
                await self._get(path, send)
            elif scope["method"] == "POST":
                await self._post(path, receive, send)
            else:
                raise ApiError(405, "MethodNotAllowed", f"{scope['method']} is not allowed here")
        except ApiError as exc:
            body: dict[str, Any] = {"message": exc.message, "type": exc.kind}
            if path.startswith("/v1/messages"):
                await _json(send, {"type": "error", "error": body}, exc.status)
            else:
                body |= {"param": exc.param, "code": exc.status}
                await _json(send, {"error": body}, exc.status)

    async def _get(self, path: str, send: Send) -> None:
        match path:
            case "/health":
                await _respond(send, b"", b"text/plain")
            case "/v1/models":
                await _json(send, {"object": "list", "data": self._models()})
            case "/metrics":
                text = (await self._engine.metrics()).encode()
                await _respond(send, text, b"text/plain; version=0.0.4; charset=utf-8")
            case "/version":
                await _json(send, {"version": "fake"})
            case _:
                raise _not_found(path)

    async def _post(self, path: str, receive: Receive, send: Send) -> None:
        if path in GENERATE:
            model, wire = GENERATE[path]
            await self._generate(parse_body(model, await _body(receive)).ask(), wire, receive, send)
        elif path in POOL:
            request = await self._known(POOL[path], receive)
            await _json(send, request.answer(request.model or self._engine.model))
        elif path == "/tokenize":
            await _json(send, self._tokenize(await self._known(TokenizeRequest, receive)))
        elif path == "/detokenize":
            words = await self._known(DetokenizeRequest, receive)
            await _json(send, {"prompt": self._vocabulary.detokenize(words.tokens)})
        elif path == "/v1/messages/count_tokens":
            ask = (await self._known(CountRequest, receive)).ask()
            await _json(send, {"input_tokens": len(ask.prompt.split())})
        else:
            raise _not_found(path)

    async def _known(self, model: type[R], receive: Receive) -> R:
        """The request, after a check that its model exists."""
        request = parse_body(model, await _body(receive))
        self._engine.resolve(request.model)
        return request

    async def _generate(self, ask: Ask, factory: WireFactory, receive: Receive, send: Send) -> None:
        answer = self._engine.answer(ask)
        wire = factory(ask, answer, ask.model or self._engine.model)
        turn = Turn()
        watcher = asyncio.ensure_future(_watch(receive, turn))
        try:
            if ask.stream:
                await send(STREAM_START)
                await self._engine.generate(answer, ask.n, turn, _emitter(wire, ask.n, send))
            elif await self._engine.generate(answer, ask.n, turn):
                await _json(send, wire.whole())
        finally:
            watcher.cancel()

    def _tokenize(self, request: TokenizeRequest) -> dict[str, Any]:
        words = request.words
        return {
            "count": len(words),
            "max_model_len": self._engine.config.max_model_len,
            "tokens": self._vocabulary.tokenize(words),
            "token_strs": words if request.return_token_strs else None,
        }

    def _models(self) -> list[dict[str, Any]]:
        base = self._engine.model
        cards = [(base, None), *((name, base) for name in self._engine.adapters())]
        return [
            {
                "id": name,
                "object": "model",
                "created": self._created,
                "owned_by": "corral",
                "root": name,
                "parent": parent,
                "max_model_len": self._engine.config.max_model_len,
            }
            for name, parent in cards
        ]


def _emitter(wire: Wire, choices: int, send: Send) -> Callable[[bool, str, bool], Any]:
    """Sends one body for each token; the bracketing events travel with the first and the last."""
    message: Message = {"type": "http.response.body", "body": b"", "more_body": True}

    async def emit(first: bool, token: str, last: bool) -> None:
        head = wire.opening() if first else b""
        if choices == 1:
            body = head + wire.delta(0, token, last)
        else:
            body = head + b"".join(wire.delta(index, token, last) for index in range(choices))
        if last:
            body += wire.closing()
            message["more_body"] = False
        message["body"] = body
        await send(message)

    return emit


async def _watch(receive: Receive, turn: Turn) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    turn.leave()


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ApiError.bad_request("the client went away before the body's end")
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _not_found(path: str) -> ApiError:
    return ApiError(404, "NotFoundError", f"There is no route {path}.")


async def _json(send: Send, payload: dict[str, Any], status: int = 200) -> None:
    await _respond(send, json.dumps(payload).encode(), b"application/json", status)


async def _respond(send: Send, body: bytes, content_type: bytes, status: int = 200) -> None:
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
