"""Writes `serving/gateway/openapi/engine_fields.json`: the engines' request fields, from vLLM.

python -m scripts.openapi

The gateway must not import vLLM, so what its request classes say of each field (type, bounds,
default, description) is kept as a file. Only fields that the gateway passes on are in it. A test
with the real vLLM installed fails when the file is out of date.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from serving.gateway.fields import rules_by_path
from serving.gateway.limits import RequestLimits
from serving.gateway.openapi.components import STRUCTURED

TARGET = Path(__file__).parents[1] / "serving/gateway/openapi/engine_fields.json"

_ROOT = "vllm.entrypoints."
CLASSES: dict[str, tuple[tuple[str, str], ...]] = {
    "/v1/chat/completions": (("openai.chat_completion.protocol", "ChatCompletionRequest"),),
    "/v1/completions": (("openai.completion.protocol", "CompletionRequest"),),
    "/v1/responses": (("openai.responses.protocol", "ResponsesRequest"),),
    "/v1/messages": (("anthropic.protocol", "AnthropicMessagesRequest"),),
    "/v1/messages/count_tokens": (("anthropic.protocol", "AnthropicCountTokensRequest"),),
    "/v1/embeddings": (
        ("pooling.embed.protocol", "EmbeddingCompletionRequest"),
        ("pooling.embed.protocol", "EmbeddingChatRequest"),
    ),
    "/v1/rerank": (("pooling.scoring.protocol", "RerankRequest"),),
    "/v1/score": tuple(
        ("pooling.scoring.protocol", f"Score{kind}Request")
        for kind in ("Text", "Data", "QueriesDocuments", "QueriesItems")
    ),
    "/tokenize": (
        ("serve.tokenize.protocol", "TokenizeCompletionRequest"),
        ("serve.tokenize.protocol", "TokenizeChatRequest"),
    ),
    "/detokenize": (("serve.tokenize.protocol", "DetokenizeRequest"),),
}
"""vLLM's request classes of each endpoint; a request is one of them."""

Schema = dict[str, Any]


def engine_fields(schemas: dict[str, Schema]) -> dict[str, Schema]:
    """Properties and required fields by path, from the classes' JSON Schemas by class name."""
    rules = rules_by_path(RequestLimits())
    found: dict[str, Schema] = {}
    for path, classes in CLASSES.items():
        properties: Schema = {}
        required: list[set[str]] = []
        for _, name in classes:
            schema = schemas[name]
            required.append(set(schema.get("required", ())) & set(rules[path]))
            for field, described in schema["properties"].items():
                if field in rules[path]:
                    properties.setdefault(field, _described(field, described, schema))
        found[path] = {
            "properties": dict(sorted(properties.items())),
            "required": sorted(set.intersection(*required)),
        }
    return found


def _described(name: str, schema: Schema, root: Schema) -> Schema:
    """One field; what nests is described by `components.py` and keeps only its words."""
    if name in STRUCTURED:
        return {key: schema[key] for key in ("description",) if key in schema}
    inlined: Schema = _inlined(schema, root)
    return inlined


def _inlined(value: Any, root: Schema) -> Any:
    if isinstance(value, list):
        return [_inlined(item, root) for item in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        return _inlined(root["$defs"][value["$ref"].rpartition("/")[2]], root)
    return {key: _inlined(item, root) for key, item in value.items() if key != "title"}


def installed_schemas() -> dict[str, Schema]:
    """Of the vLLM that is installed."""
    return {
        name: getattr(importlib.import_module(_ROOT + module), name).model_json_schema()
        for classes in CLASSES.values()
        for module, name in classes
    }


def encode(fields: dict[str, Schema]) -> str:
    """The file's text."""
    return json.dumps(fields, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(encode(engine_fields(installed_schemas())), encoding="utf-8")
