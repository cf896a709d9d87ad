"""Schemas by hand: request fields that nest, answers of the engines, errors."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    """A reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: list[str], **properties: Any) -> Schema:
    return {"type": "object", "properties": properties, "required": required}


def _list(items: Schema, **bounds: int) -> Schema:
    return {"type": "array", "items": items, **bounds}


def _null(*schemas: Schema) -> Schema:
    return {"anyOf": [*schemas, {"type": "null"}]}


_STRING: Schema = {"type": "string"}
_INTEGER: Schema = {"type": "integer"}
_TOKEN: Schema = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_NUMBER: Schema = {"type": "number"}
_ANY_OBJECT: Schema = {"type": "object"}
_TEXTS: Schema = {"anyOf": [_STRING, _list(ref("Document"), minItems=1)]}
_TEXTS_OR_TOKENS: Schema = {
    "anyOf": [
        _STRING,
        _list(_STRING, minItems=1),
        _list(_TOKEN, minItems=1),
        _list(_list(_TOKEN, minItems=1), minItems=1),
    ]
}

STRUCTURED: dict[str, Schema] = {
    "messages": _list(ref("Message"), minItems=1),
    "system": _null(_STRING, _list(ref("TextPart"))),
    "input": {},
    "prompt": _TEXTS_OR_TOKENS,
    "tools": _null(_list(ref("Tool"))),
    "tool_choice": _null(_STRING, _ANY_OBJECT),
    "response_format": _null(ref("ResponseFormat")),
    "structured_outputs": _null(ref("StructuredOutputs")),
    "text": _null(_ANY_OBJECT),
    "output_config": _null(_ANY_OBJECT),
    "reasoning": _null(_ANY_OBJECT),
    "thinking": _null(_ANY_OBJECT),
    "metadata": _null(_ANY_OBJECT),
    "documents": _null(_TEXTS),
    "query": ref("Document"),
    "text_1": _TEXTS,
    "text_2": _TEXTS,
    "data_1": _TEXTS,
    "data_2": _TEXTS,
    "queries": _TEXTS,
    "items": _TEXTS,
    "chat_template_kwargs": _null(_ANY_OBJECT),
    "logit_bias": _null(
        {
            "type": "object",
            "propertyNames": {"pattern": r"^\d{1,9}$"},
            "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
        }
    ),
    "stop": _null(_STRING, _list(_STRING)),
    "include": _null(_list(_STRING)),
}
"""Request fields whose schema is written here rather than taken from vLLM."""

EMBEDDING_INPUT = _TEXTS_OR_TOKENS
RESPONSE_INPUT: Schema = {"anyOf": [_STRING, _list(ref("InputItem"), minItems=1)]}
CHAT_DOCUMENTS: Schema = _null(_list({"type": "object", "additionalProperties": _STRING}))
PROMPT_TEXT: Schema = _STRING

OWN_FIELDS: dict[str, Schema] = {
    "best_of": {**_null(_INTEGER), "description": "Accepted where it equals `n`."},
    "return_documents": {"type": "boolean", "description": "Repeat each document."},
}
"""Fields passed on that vLLM's classes do not have."""

_CHOICES = _list(_ANY_OBJECT)
_USAGE = _null(_ANY_OBJECT)

REQUEST_PARTS: dict[str, Schema] = {
    "TextPart": _object(["type"], type=_STRING, text=_STRING),
    "Message": _object(
        ["role"],
        role=_STRING,
        content=_null(_STRING, _list(ref("TextPart"))),
        name=_STRING,
        tool_calls=_null(_list(_ANY_OBJECT)),
        tool_call_id=_STRING,
    ),
    "InputItem": _object(
        [],
        type=_STRING,
        role=_STRING,
        content=_null(_STRING, _list(ref("TextPart"))),
        output=_null(_STRING, _list(ref("TextPart"))),
    ),
    "Document": {"anyOf": [_STRING, _object(["text"], text=_STRING)]},
    "Tool": _ANY_OBJECT
    | {
        "description": "A function: OpenAI's, Responses' or Anthropic's form, as the endpoint's; "
        "in `/v1/responses` also `file_search`, of vector stores."
    },
    "ResponseFormat": _object(
        ["type"],
        type={"enum": ["text", "json_object", "json_schema", "structural_tag"]},
        json_schema=_null(_ANY_OBJECT),
    ),
    "StructuredOutputs": _object(
        [],
        json={"anyOf": [_STRING, _ANY_OBJECT]},
        regex=_STRING,
        choice=_list(_STRING),
        grammar=_STRING,
        json_object={"type": "boolean"},
        structural_tag=_STRING,
    )
    | {"description": "Exactly one constraint."},
}

ANSWERS: dict[str, Schema] = {
    "Error": _object(
        ["error"],
        error=_object(
            ["message", "type", "param", "code"],
            message=_STRING,
            type=_STRING,
            param=_null(_STRING),
            code=_null(_STRING),
        ),
    ),
    "AnthropicError": _object(
        ["type", "error"],
        type={"const": "error"},
        error=_object(["type", "message"], type=_STRING, message=_STRING),
    ),
    "ChatCompletion": _object(
        ["id", "object", "created", "model", "choices"],
        id=_STRING, object={"const": "chat.completion"}, created=_INTEGER, model=_STRING,
        choices=_CHOICES, usage=_USAGE,
    ),
    "Completion": _object(
        ["id", "object", "created", "model", "choices"],
        id=_STRING, object={"const": "text_completion"}, created=_INTEGER, model=_STRING,
        choices=_CHOICES, usage=_USAGE,
    ),
    "Response": _object(
        ["id", "object", "model", "output", "status"],
        id=_STRING, object={"const": "response"}, model=_STRING, output=_list(_ANY_OBJECT),
        status=_STRING, usage=_USAGE,
    ),
    "AnthropicMessage": _object(
        ["id", "type", "role", "content", "model", "usage"],
        id=_STRING, type={"const": "message"}, role={"const": "assistant"},
        content=_list(_ANY_OBJECT), model=_STRING, usage=_ANY_OBJECT,
    ),
    "TokenCount": _object(["input_tokens"], input_tokens=_INTEGER),
    "Embeddings": _object(
        ["object", "data", "model", "usage"],
        object={"const": "list"}, data=_list(_ANY_OBJECT), model=_STRING, usage=_ANY_OBJECT,
    ),
    "Ranking": _object(
        ["results"], id=_STRING, model=_STRING, usage=_ANY_OBJECT,
        results=_list(_object(["index", "relevance_score"], index=_INTEGER,
                              relevance_score=_NUMBER, document=_null(_ANY_OBJECT))),
    ),
    "Scores": _object(
        ["object", "data", "model"],
        object={"const": "list"}, model=_STRING, usage=_ANY_OBJECT,
        data=_list(_object(["index", "score"], index=_INTEGER, score=_NUMBER)),
    ),
    "Tokens": _object(
        ["count", "max_model_len", "tokens"],
        count=_INTEGER, max_model_len=_INTEGER, tokens=_list(_INTEGER),
        token_strs=_null(_list(_STRING)),
    ),
    "Text": _object(["prompt"], prompt=_STRING),
}  # fmt: skip
