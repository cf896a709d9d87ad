"""Puts the OpenAPI document together: FastAPI's routes, the engines' endpoints, the errors."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI

from serving.gateway.fields import DROPPED, rules_by_path
from serving.gateway.limits import RequestLimits
from serving.gateway.openapi.components import (
    ANSWERS,
    CHAT_DOCUMENTS,
    EMBEDDING_INPUT,
    OWN_FIELDS,
    PROMPT_TEXT,
    REQUEST_PARTS,
    RESPONSE_INPUT,
    STRUCTURED,
    Schema,
    ref,
)

_FIELDS_FILE = Path(__file__).parent / "engine_fields.json"

ERRORS = {
    400: "The request makes no sense, or asks for more than is allowed; `param` names the field",
    401: "No valid key",
    402: "A budget is spent, or this request may cost more than it may",
    403: "The key may not do this",
    404: "No such model, adapter or route",
    408: "The request came too slowly",
    409: "It exists already, or its state forbids the change",
    413: "The body is too large",
    429: "Too many requests at once; `retry-after` says when to come back",
    500: "A fault of the server",
    503: "No replica can answer now; `retry-after` says when to come back",
}


@dataclass(frozen=True)
class _Endpoint:
    """One path of the engines."""

    summary: str
    answer: str
    tag: str
    streams: bool = False


_ENDPOINTS = {
    "/v1/chat/completions": _Endpoint(
        "Answer a conversation", "ChatCompletion", "generate", streams=True
    ),
    "/v1/completions": _Endpoint("Continue a text", "Completion", "generate", streams=True),
    "/v1/responses": _Endpoint("Answer (Responses API)", "Response", "generate", streams=True),
    "/v1/messages": _Endpoint(
        "Answer (Anthropic's API)", "AnthropicMessage", "generate", streams=True
    ),
    "/v1/messages/count_tokens": _Endpoint(
        "Tokens of a conversation (Anthropic's API)", "TokenCount", "tokens"
    ),
    "/v1/embeddings": _Endpoint("Embed texts", "Embeddings", "pooling"),
    "/v1/rerank": _Endpoint("Order documents by a query", "Ranking", "pooling"),
    "/v1/score": _Endpoint("Score pairs of texts", "Scores", "pooling"),
    "/tokenize": _Endpoint("Text to token ids", "Tokens", "tokens"),
    "/detokenize": _Endpoint("Token ids to text", "Text", "tokens"),
}
_OTHER_FORMS = {
    ("/v1/responses", "input"): RESPONSE_INPUT,
    ("/v1/embeddings", "input"): EMBEDDING_INPUT,
    ("/v1/chat/completions", "documents"): CHAT_DOCUMENTS,
    ("/tokenize", "prompt"): PROMPT_TEXT,
}


def build(app: FastAPI, limits: RequestLimits, aliases: dict[str, str]) -> Schema:
    """The whole document. `aliases`: other paths of an engine's endpoint."""
    document = copy.deepcopy(app.openapi())
    document["info"]["description"] = (
        "An OpenAI-compatible API (and Anthropic's /v1/messages) over the models of this stack. "
        "A field that is not listed is refused with 400, except these, which have no effect: "
        + ", ".join(f"`{name}`" for name in sorted(set().union(*DROPPED.values())))
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas |= REQUEST_PARTS | ANSWERS
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for item in document["paths"].values():
        for operation in item.values():
            _complete(operation)
    _link(document)
    fields: dict[str, Schema] = json.loads(_FIELDS_FILE.read_text(encoding="utf-8"))
    for path in _ENDPOINTS:
        schemas[_name(path)] = _request(path, fields[path], limits)
        document["paths"][path] = {"post": _operation(path, path)}
    for alias, path in aliases.items():
        document["paths"][alias] = {"post": _operation(path, alias)}
    return document


def _complete(operation: Schema) -> None:
    """FastAPI's own operations: our errors in place of its 422."""
    operation["responses"].pop("422", None)
    if "admin" in operation["tags"]:
        operation["security"] = [{"key": []}]
    for status in ERRORS:
        operation["responses"].setdefault(str(status), _error(status, "Error"))


def _link(document: Schema) -> None:
    """What a list of models leads to."""
    document["paths"]["/v1/models"]["get"]["responses"]["200"]["links"] = {
        "model": {
            "operationId": document["paths"]["/v1/models/{name}"]["get"]["operationId"],
            "parameters": {"name": "$response.body#/data/0/id"},
        }
    }


def _operation(path: str, shown: str) -> Schema:
    endpoint = _ENDPOINTS[path]
    error = "AnthropicError" if path.startswith("/v1/messages") else "Error"
    content: Schema = {"application/json": {"schema": ref(endpoint.answer)}}
    if endpoint.streams:
        content["text/event-stream"] = {}
    answer = {"description": endpoint.summary, "headers": _ID_HEADER, "content": content}
    body = {"required": True, "content": {"application/json": {"schema": ref(_name(path))}}}
    return {
        "summary": endpoint.summary,
        "description": "Server-sent events with `stream: true`." if endpoint.streams else "",
        "operationId": "post" + shown.replace("/", "_"),
        "tags": [endpoint.tag],
        "requestBody": body,
        "responses": {"200": answer} | {str(s): _error(s, error) for s in ERRORS},
        "security": [{"key": []}],
    }


_ID_HEADER = {
    "x-request-id": {
        "description": "The request's id: the client's own if it sent one that is well-formed.",
        "schema": {"type": "string"},
    }
}


def _error(status: int, schema: str) -> Schema:
    content = {"application/json": {"schema": ref(schema)}}
    return {"description": ERRORS[status], "headers": _ID_HEADER, "content": content}


def _name(path: str) -> str:
    words = path.removeprefix("/v1").replace("_", "/").split("/")
    return "".join(word.capitalize() for word in words) + "Request"


def _request(path: str, fields: Schema, limits: RequestLimits) -> Schema:
    properties = {
        name: _field(path, name, described, limits)
        for name, described in fields["properties"].items()
    }
    for name in rules_by_path(limits)[path]:
        if name not in properties:
            properties[name] = OWN_FIELDS.get(name, {"description": _OPTED_IN})
    for name in sorted(DROPPED[path]):
        properties.setdefault(name, {"description": _IGNORED})
    return {
        "type": "object",
        "properties": properties,
        "required": fields["required"],
        "additionalProperties": False,
    }


_OPTED_IN = "Passed on unchecked: this stack allows it in `gateway.limits.allow_fields`."
_IGNORED = "Accepted and without effect."


def _field(path: str, name: str, described: Schema, limits: RequestLimits) -> Schema:
    schema = _OTHER_FORMS.get((path, name)) or STRUCTURED.get(name, {})
    schema = copy.deepcopy({**schema, **described})
    maximum = _maxima(limits).get(name)
    if maximum is not None and not (name == "logprobs" and path == "/v1/chat/completions"):
        for option in schema.get("anyOf", [schema]):
            if option.get("type") == "integer":
                option["maximum"] = maximum
                option.setdefault("minimum", -1 if name == "truncate_prompt_tokens" else 0)
            elif option.get("type") == "array":
                option["maxItems"] = maximum
    return schema


def _maxima(limits: RequestLimits) -> dict[str, int]:
    tokens = limits.max_output_tokens
    return {
        "n": limits.max_n,
        "best_of": limits.max_n,
        "max_tokens": tokens,
        "max_completion_tokens": tokens,
        "max_output_tokens": tokens,
        "min_tokens": tokens,
        "logprobs": limits.max_logprobs,
        "top_logprobs": limits.max_logprobs,
        "prompt_logprobs": limits.max_logprobs,
        "logprob_token_ids": limits.max_logprobs,
        "stop": limits.max_stop,
        "stop_sequences": limits.max_stop,
        "stop_token_ids": limits.max_stop,
        "bad_words": limits.max_bad_words,
        "tools": limits.max_tools,
        "messages": limits.max_messages,
        "truncate_prompt_tokens": limits.max_input_tokens,
    }
