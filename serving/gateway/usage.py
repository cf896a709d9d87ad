"""Reads what a request has used from the end of its answer: once a request, never per chunk."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from serving.usage import TokenUsage

TAIL_PIECES = 8
"""Last pieces of a stream that are kept; the event with the usage is among them."""
USAGE_CHUNK = b'"choices":[]'
"""In the one event of a stream of completions that carries nothing but the usage."""


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    """OpenAI's two spellings and Anthropic's."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None

    def normal(self) -> TokenUsage:
        details = self.prompt_tokens_details or self.input_tokens_details or _Details()
        given = self.prompt_tokens if self.prompt_tokens is not None else self.input_tokens
        cached = details.cached_tokens or 0
        # Anthropic counts what the cache gave and took beside the input, OpenAI within it.
        read, written = self.cache_read_input_tokens or 0, self.cache_creation_input_tokens or 0
        if read or written:
            cached = read
            given = (given or 0) + read + written
        output = self.completion_tokens or self.output_tokens or 0
        if given is None:
            given = max(0, (self.total_tokens or 0) - output)
        return TokenUsage(given, min(cached, given), output)


class _Answer(msgspec.Struct):
    usage: _Usage | None = None


class _Event(msgspec.Struct):
    usage: _Usage | None = None
    response: _Answer | None = None
    """Of the Responses API: the event that ends a stream repeats the whole response."""


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_event = msgspec.json.Decoder(_Event).decode


def usage_of_answer(body: bytes) -> TokenUsage | None:
    """Of a whole JSON answer; None when it does not say."""
    try:
        usage = _decode_answer(body).usage
    except msgspec.MsgspecError:
        return None
    return usage.normal() if usage is not None else None


def usage_of_stream(tail: Sequence[bytes]) -> TokenUsage | None:
    """Of a stream's last pieces: the last event that has a usage. None when none does."""
    for event in reversed(b"".join(tail).split(b"\n\n")):
        start = event.find(b"data: ")
        if start < 0 or b'"usage"' not in event:
            continue
        try:
            found = _decode_event(event[start + 6 :])
        except msgspec.MsgspecError:
            continue
        usage = found.usage or (found.response.usage if found.response else None)
        if usage is not None:
            return usage.normal()
    return None


def without_usage_chunk(piece: bytes) -> bytes:
    """The piece less the event that the client did not ask for."""
    events = piece.split(b"\n\n")
    return b"\n\n".join(event for event in events if USAGE_CHUNK not in event)
