"""Requests to the fake engine: what they may hold, and the answer that follows from them.

Knows neither HTTP nor time: a request model turns into an `Ask`, an `Ask` into an
`Answer`. Tokens are words separated by white space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

__all__ = [
    "Answer",
    "ApiError",
    "Ask",
    "ChatRequest",
    "CompletionRequest",
    "CountRequest",
    "GenerateRequest",
    "MessagesRequest",
    "Named",
    "ResponsesRequest",
    "parse_body",
]

MAX_CHOICES = 64


class ApiError(Exception):
    """A request that is refused, as an OpenAI error envelope (vLLM's type names)."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.param = param

    @staticmethod
    def bad_request(message: str, param: str | None = None) -> ApiError:
        return ApiError(400, "BadRequestError", message, param)


@dataclass(frozen=True)
class Ask:
    """What a request wants, whichever API it came by."""

    model: str | None
    prompt: str
    """Everything that counts as input."""
    echo: str
    """The text that the answer repeats: the last thing the user said."""
    max_tokens: int | None
    stop: tuple[str, ...] = ()
    n: int = 1
    stream: bool = False
    include_usage: bool = False


@dataclass(frozen=True)
class Answer:
    """The whole answer, known before its first token is sent."""

    tokens: tuple[str, ...]
    """Joined, they are the text. At least one."""
    finish: Literal["stop", "length"]
    stop_reason: str | None
    """The stop string that ended it, if one did."""
    prompt_tokens: int

    @property
    def text(self) -> str:
        return "".join(self.tokens)

    @staticmethod
    def to(ask: Ask, adapter: str | None, default_tokens: int, max_model_len: int) -> Answer:
        """Echo `ask.echo`, cycled to the wanted length, after `[adapter] ` if one answers.

        Raises ApiError (400) when prompt and answer together exceed `max_model_len` tokens.
        """
        prompt_tokens = len(ask.prompt.split())
        room = max_model_len - prompt_tokens
        if room < (ask.max_tokens or 1):
            raise ApiError.bad_request(
                f"This model's maximum context length is {max_model_len} tokens. However, you "
                f"requested {ask.max_tokens or 1} output tokens and your prompt contains "
                f"{prompt_tokens} input tokens. Please reduce the length of the prompt or the "
                "number of requested output tokens.",
                "max_tokens",
            )
        count = ask.max_tokens or min(default_tokens, room)
        words = ask.echo.split() or ["..."]
        spaced = [f" {word}" for word in words]
        tokens = (spaced * (count // len(spaced) + 1))[:count]
        tokens[0] = f"[{adapter}] {words[0]}" if adapter else words[0]
        finish: Literal["stop", "length"] = "length" if ask.max_tokens else "stop"
        return _stopped(tokens, ask.stop, Answer(tuple(tokens), finish, None, prompt_tokens))


def _stopped(tokens: list[str], stops: tuple[str, ...], whole: Answer) -> Answer:
    """`whole`, cut before the first stop string in it."""
    text = whole.text if stops else ""
    found = [(text.find(stop), stop) for stop in stops if stop in text]
    if not found:
        return whole
    end, stop = min(found)
    kept: list[str] = []
    for token in tokens:
        if end <= 0:
            break
        kept.append(token[:end])
        end -= len(token)
    return Answer(tuple(kept) or ("",), "stop", stop, whole.prompt_tokens)


class _Part(BaseModel):
    text: str = ""


class _Message(BaseModel):
    role: str = "user"
    content: str | list[_Part] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return " ".join(part.text for part in self.content)
        return self.content or ""


class _StreamOptions(BaseModel):
    include_usage: bool = False


class Named(BaseModel):
    """A request; without `model` the base model answers it."""

    model: str | None = None


class _Base(Named):
    stream: bool = False


def _last_user_text(messages: list[_Message]) -> str:
    spoken = [message.text for message in messages if message.role == "user"]
    return (spoken or [messages[-1].text])[-1]


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    return tuple(s for s in ([stop] if isinstance(stop, str) else stop or []) if s)


class ChatRequest(_Base):
    """`POST /v1/chat/completions`."""

    messages: list[_Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stop: str | list[str] | None = None
    n: int = Field(1, ge=1, le=MAX_CHOICES)
    stream_options: _StreamOptions | None = None

    def ask(self) -> Ask:
        return Ask(
            model=self.model,
            prompt=" ".join(message.text for message in self.messages),
            echo=_last_user_text(self.messages),
            max_tokens=self.max_completion_tokens or self.max_tokens,
            stop=_stops(self.stop),
            n=self.n,
            stream=self.stream,
            include_usage=self.stream_options is not None and self.stream_options.include_usage,
        )


class CompletionRequest(_Base):
    """`POST /v1/completions`. Without `max_tokens` vLLM answers 16 tokens; so does this.

    Token ids are words here: each is its own number.
    """

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=1)]
        | Annotated[list[int], Field(min_length=1)]
    )
    max_tokens: int | None = Field(16, ge=1)
    stop: str | list[str] | None = None
    n: int = Field(1, ge=1, le=MAX_CHOICES)
    stream_options: _StreamOptions | None = None

    def ask(self) -> Ask:
        match self.prompt:
            case str(prompt) | [str(prompt)]:
                pass
            case ids:
                prompt = " ".join(map(str, ids))
        return Ask(
            model=self.model,
            prompt=prompt,
            echo=prompt,
            max_tokens=self.max_tokens,
            stop=_stops(self.stop),
            n=self.n,
            stream=self.stream,
            include_usage=self.stream_options is not None and self.stream_options.include_usage,
        )


class ResponsesRequest(_Base):
    """`POST /v1/responses`."""

    input: str | list[_Message] = Field(min_length=1)
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)

    def ask(self) -> Ask:
        said = self.input
        messages = [_Message(content=said)] if isinstance(said, str) else said
        texts = [self.instructions or "", *(message.text for message in messages)]
        return Ask(
            model=self.model,
            prompt=" ".join(texts),
            echo=_last_user_text(messages),
            max_tokens=self.max_output_tokens,
            stream=self.stream,
        )


class MessagesRequest(_Base):
    """`POST /v1/messages` (Anthropic)."""

    messages: list[_Message] = Field(min_length=1)
    system: str | list[_Part] | None = None
    max_tokens: int = Field(ge=1)
    stop_sequences: list[str] | None = None

    def ask(self) -> Ask:
        system = _Message(content=self.system).text
        return Ask(
            model=self.model,
            prompt=" ".join([system, *(message.text for message in self.messages)]),
            echo=_last_user_text(self.messages),
            max_tokens=self.max_tokens,
            stop=_stops(self.stop_sequences),
            stream=self.stream,
        )


class CountRequest(MessagesRequest):
    """`POST /v1/messages/count_tokens` (Anthropic): as a message, without a limit."""

    max_tokens: int = 1


GenerateRequest = ChatRequest | CompletionRequest | ResponsesRequest | MessagesRequest
R = TypeVar("R", bound=Named)


def parse_body(model: type[R], body: bytes) -> R:
    """`body` as a `model`. Raises ApiError (400) naming the first field at fault."""
    try:
        return model.model_validate_json(body)
    except ValidationError as exc:
        fault = exc.errors(include_url=False)[0]
        field = ".".join(str(part) for part in fault["loc"])
        where = f"{field}: " if field else ""
        raise ApiError.bad_request(f"{where}{fault['msg']}", field or None) from exc
