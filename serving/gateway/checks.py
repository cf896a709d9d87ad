"""Checks of single fields: types, ranges, counts, grammars.

A check takes the raw JSON of one field and raises: `msgspec.ValidationError` where the type
or a bound is wrong, ApiError (400) where more must be said. What it returns does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from serving.gateway.errors import ApiError
from serving.gateway.grammar import schema_copies
from serving.gateway.json_shape import exceeds
from serving.gateway.limits import RequestLimits

Check = Callable[[Raw], object]

INT32_MAX = 2**31 - 1


def typed(kind: Any) -> Check:
    """A field of this type, or null."""
    return msgspec.json.Decoder(kind | None).decode


def anything(raw: Raw) -> None:
    """No check: the engine's own validation suffices, and costs it nothing."""


def integer(low: int, high: int) -> Check:
    """An integer within the bounds, or null."""
    return typed(Annotated[int, Meta(ge=low, le=high)])


def number(low: float, high: float) -> Check:
    """A finite number within the bounds, or null."""
    return typed(Annotated[float, Meta(ge=low, le=high)])


def text(chars: int) -> Check:
    """A string of so many characters, or null."""
    return typed(Annotated[str, Meta(max_length=chars)])


def listed(kind: Any, count: int) -> Check:
    """A list of so many entries, or null."""
    return typed(Annotated[list[kind], Meta(max_length=count)])


def grammar(name: str, limits: RequestLimits) -> Check:
    """A field that brings a schema, a regex or a grammar."""

    def check(raw: Raw) -> None:
        check_grammar(name, bytes(raw), limits)

    return check


def check_grammar(where: str, encoded: bytes, limits: RequestLimits) -> None:
    """Size, depth and repetition of one schema or grammar. Raises ApiError."""
    at_most(where, "bytes", len(encoded), limits.max_grammar_bytes)
    shape = exceeds(encoded, depth=limits.max_grammar_depth, containers=limits.max_grammar_bytes)
    if shape is not None:
        at_most(where, "levels", shape.depth, limits.max_grammar_depth)
    value = msgspec.json.decode(encoded)
    if isinstance(value, dict):
        for key in ("json", "structural_tag"):
            if isinstance(value.get(key), str):
                value[key] = _embedded(f"{where}.{key}", value[key], limits)
    at_most(where, "repetitions", schema_copies(value), limits.max_grammar_repeat)


def structured_outputs(limits: RequestLimits) -> Check:
    """vLLM's `structured_outputs`: only what its API documents, not what its scheduler sets."""
    names = {"json", "regex", "choice", "grammar", "json_object", "structural_tag"}
    names |= {"whitespace_pattern", "disable_any_whitespace", "disable_additional_properties"}
    keys = msgspec.json.Decoder(dict[str, Raw] | None).decode

    def check(raw: Raw) -> None:
        _known("structured_outputs", keys(raw) or (), names)
        check_grammar("structured_outputs", bytes(raw), limits)

    return check


def tools(limits: RequestLimits) -> Check:
    """`tools`: their number and size, and each one's schema."""
    decode = msgspec.json.Decoder(
        Annotated[list[dict[str, Raw]], Meta(max_length=limits.max_tools)] | None
    ).decode

    def check(raw: Raw) -> None:
        at_most("tools", "bytes", len(memoryview(raw)), limits.max_tools_bytes)
        for index, tool in enumerate(decode(raw) or ()):
            for key in ("function", "parameters", "input_schema", "format"):
                if key in tool:
                    check_grammar(f"tools[{index}].{key}", bytes(tool[key]), limits)

    return check


def template_kwargs(limits: RequestLimits) -> Check:
    """`chat_template_kwargs`: a template reads them, so only named ones pass."""
    keys = msgspec.json.Decoder(dict[str, Raw] | None).decode

    def check(raw: Raw) -> None:
        _known("chat_template_kwargs", keys(raw) or (), set(limits.chat_template_kwargs))

    return check


def _embedded(where: str, given: str, limits: RequestLimits) -> Any:
    """JSON inside a string, under the same limits. What is not JSON the engine refuses."""
    encoded = given.encode()
    shape = exceeds(encoded, depth=limits.max_grammar_depth, containers=limits.max_grammar_bytes)
    if shape is not None:
        at_most(where, "levels", shape.depth, limits.max_grammar_depth)
    try:
        return msgspec.json.decode(encoded)
    except msgspec.DecodeError:
        return given


def _known(name: str, keys: Iterable[str], allowed: set[str]) -> None:
    for key in keys:
        if key not in allowed:
            known = ", ".join(sorted(allowed))
            where = f"{name}.{key[:64]}"
            raise ApiError(
                400, f"`{where}`: not accepted; known are {known}", code="unknown_parameter",
                param=where,
            )  # fmt: skip


def at_most(where: str, what: str, count: int, limit: int) -> None:
    """Raises ApiError (400) beyond the limit."""
    if count > limit:
        raise ApiError(400, f"`{where}`: {count} {what}; at most {limit} are accepted", param=where)
