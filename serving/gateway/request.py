"""A request to an engine: its body read once, checked field by field, written once.

The body stays a shallow object: names to raw JSON. What the gateway changes (model name,
cache salt, usage) it sets by field; all else reaches the engine byte for byte.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import msgspec

from serving.gateway.errors import ApiError
from serving.gateway.fields import DROPPED, Rule, refusal, rules_by_path
from serving.gateway.json_shape import exceeds
from serving.gateway.limits import RequestLimits

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_USAGE_PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})


class EngineRequest:
    """One checked request. `set` and `remove` change it; `encode` gives the bytes to send."""

    __slots__ = (
        *("_body", "_fields", "model", "path", "stream", "usage_was_added"),
        "wants_usage",
    )

    def __init__(self, path: str, body: bytes | None, fields: dict[str, msgspec.Raw]) -> None:
        self.path = path
        self._body = body
        self._fields = fields
        self.usage_was_added = False
        """Whether a stream ends with a chunk that the client did not ask for."""
        self.model: str | None = self.value("model")
        """As the client wrote it; `set("model", ...)` changes what the engine sees, not this."""
        self.stream: bool = bool(self.value("stream"))
        self.wants_usage: bool = path in _USAGE_PATHS and bool(
            (self.value("stream_options") or {}).get("include_usage")
        )
        """Whether the client itself asked for usage at the end of a stream."""

    @property
    def fields(self) -> Mapping[str, msgspec.Raw]:
        """Raw JSON by name."""
        return self._fields

    @property
    def size(self) -> int:
        """Bytes that the engine will be sent."""
        return len(self.encode())

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def raw(self, name: str) -> bytes | None:
        """The JSON of one field; None where the request lacks it."""
        found = self._fields.get(name)
        return None if found is None else bytes(found)

    def value(self, name: str) -> Any:
        """One field, decoded; None where the request lacks it."""
        found = self._fields.get(name)
        return None if found is None else msgspec.json.decode(found)

    def set(self, name: str, value: Any) -> None:
        """Set one field to anything that has a JSON form."""
        self._fields[name] = msgspec.Raw(msgspec.json.encode(value))
        self._body = None

    def remove(self, name: str) -> None:
        """Drop one field, if it is there."""
        if self._fields.pop(name, None) is not None:
            self._body = None

    def include_usage(self) -> None:
        """Have a stream end with a chunk of usage; the other APIs always do."""
        if self.stream and self.path in _USAGE_PATHS and not self.wants_usage:
            self.usage_was_added = True
            self.set(
                "stream_options", (self.value("stream_options") or {}) | {"include_usage": True}
            )

    def encode(self) -> bytes:
        """The body for the engine: as it came if nothing has changed."""
        if self._body is None:
            self._body = msgspec.json.encode(self._fields)
        return self._body


class RequestReader:
    """Turns bodies into requests by the rules of `limits`. One per process; holds no state."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._rules: Mapping[str, Mapping[str, Rule]] = rules_by_path(limits)

    def read(self, path: str, body: bytes) -> EngineRequest:
        """Parse and check. Raises ApiError (400) that names the field."""
        fields = self._parse(body)
        rules = self._rules[path]
        dropped: list[str] = []
        for name, raw in fields.items():
            rule = rules.get(name)
            if rule is None:
                if name not in DROPPED[path]:
                    raise self._unknown(path, name)
                dropped.append(name)
                continue
            try:
                rule(raw)
            except msgspec.ValidationError as exc:
                raise _invalid(name, exc) from exc
            except msgspec.DecodeError as exc:
                raise ApiError(400, f"`{name}` is not valid JSON: {exc}", param=name) from exc
        for name in dropped:
            del fields[name]
        return EngineRequest(path, None if dropped else body, fields)

    def _parse(self, body: bytes) -> dict[str, msgspec.Raw]:
        limits = self._limits
        try:
            if not body.isascii():
                body.decode("utf-8")
            shape = exceeds(
                body, depth=limits.max_json_depth, containers=limits.max_json_containers
            )
            if shape is None:
                return _decode_fields(body)
        except UnicodeDecodeError as exc:
            raise ApiError(400, f"the request body is not valid UTF-8: {exc}") from exc
        except msgspec.ValidationError as exc:
            raise ApiError(400, f"invalid request: {exc}") from exc
        except (msgspec.DecodeError, RecursionError) as exc:
            raise ApiError(400, f"the request body is not valid JSON: {exc}") from exc
        if shape.depth > limits.max_json_depth:
            raise ApiError(
                400,
                f"the JSON of the request body nests {shape.depth} levels deep; "
                f"at most {limits.max_json_depth} are allowed",
            )
        raise ApiError(
            400,
            f"the JSON of the request body has {shape.containers} objects and arrays; "
            f"at most {limits.max_json_containers} are allowed",
        )

    def _unknown(self, path: str, name: str) -> ApiError:
        shown = name if len(name) <= 64 else name[:64] + "…"
        reason = refusal(name)
        if reason is None:
            near = difflib.get_close_matches(shown, list(self._rules[path]), n=1, cutoff=0.6)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            reason = f"{path} knows no such field{hint}"
        return ApiError(400, f"`{shown}`: {reason}", code="unknown_parameter", param=shown)


def _invalid(name: str, exc: msgspec.ValidationError) -> ApiError:
    """msgspec ends its words with `- at `$.path``; the path becomes the field's."""
    words, _, place = str(exc).partition(" - at `")
    where = name + place.rstrip("`").removeprefix("$")
    return ApiError(400, f"`{where}`: {words[:1].lower()}{words[1:]}", param=where)


__all__ = ["EngineRequest", "RequestReader"]
