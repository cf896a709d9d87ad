"""Requests meant to do harm, by what they attack. Every one must be answered, none with 5xx.

Figures and names follow published faults of inference servers: unbounded `n`, embeddings as
pickles, templates from requests, media addresses, grammars that blow up, parsers that differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from serving.gateway.fields import DROPPED, rules_by_path
from serving.gateway.limits import RequestLimits

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
VALID: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1},
    COMPLETIONS: {"prompt": "Hi", "max_tokens": 1},
    "/v1/responses": {"input": "Hi", "max_output_tokens": 1},
    "/v1/messages": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/embeddings": {"input": "Hi"},
    "/v1/rerank": {"query": "a", "documents": ["a", "b"]},
    "/v1/score": {"text_1": "a", "text_2": "b"},
    "/tokenize": {"prompt": "Hi"},
    "/detokenize": {"tokens": [1, 2]},
}
"""A small request that each endpoint answers."""

WRONG: dict[str, bytes] = {
    "null": b"null",
    "true": b"true",
    "zero": b"0",
    "negative": b"-1",
    "minimum": b"-9223372036854775809",
    "giant": b"1" + b"0" * 60,
    "longest": b"9" * 5000,
    "overflow": b"1e400",
    "tiny": b"1e-400",
    "fraction": b"0.5",
    "empty": b'""',
    "text": b'"x"',
    "nul": b'"a\\u0000b"',
    "bidi": b'"\\u202e\\ufeff\\ud83d\\ude00"',
    "long": b'"' + b"A" * 100_000 + b'"',
    "list": b"[]",
    "nulls": b"[null]",
    "texts": b'["", "\\u0000"]',
    "numbers": b"[-1, 1e308, 2147483648]",
    "object": b"{}",
    "nested": b'{"a": {"b": [{}]}}',
    "numeric keys": b'{"-1": 1e308, "999999999": -100}',
}
"""JSON that is wrong for nearly every field."""


@dataclass(frozen=True)
class Hostile:
    """One request and what must come of it."""

    name: str
    path: str
    body: bytes
    refused: bool = True
    """Whether only 4xx will do."""


def wrong_fields(path: str) -> Iterator[Hostile]:
    """A valid request with one field wrong, for every field and every wrong value."""
    valid = VALID[path]
    for field in (*rules_by_path(RequestLimits())[path], *sorted(DROPPED[path])):
        rest = {key: value for key, value in valid.items() if key != field}
        start = json.dumps(rest).encode().rstrip(b"}")
        for name, value in WRONG.items():
            comma = b", " if rest else b""
            body = start + comma + json.dumps(field).encode() + b": " + value + b"}"
            yield Hostile(f"{path} {field} {name}", path, body, refused=False)


def _chat(name: str, **fields: Any) -> Hostile:
    return Hostile(name, CHAT, json.dumps(VALID[CHAT] | fields).encode())


def _part(name: str, **part: Any) -> Hostile:
    return _chat(name, messages=[{"role": "user", "content": [part]}])


def _url(address: str) -> Hostile:
    return _part(f"media {address}", type="image_url", image_url={"url": address})


ADDRESSES = (
    "http://169.254.169.254/latest/meta-data/",
    "http://[::ffff:169.254.169.254]/",
    "http://[fd00:ec2::254]/",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://0251.0376.0251.0376/",
    "http://127.1:6379/",
    "http://localhost:8265/api/jobs/",
    "http://user@169.254.169.254#@example.com/",
    "HTTP://127.0.0.1/",
    " http://127.0.0.1/",
    "file:///etc/passwd",
    "ftp://127.0.0.1/",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "data:image/svg+xml;base64,PHN2Zy8+",
    "//127.0.0.1/",
    "jar:http://127.0.0.1!/",
    "",
)
_PICKLE = "gASVIAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAR0cnVllIWUUpQu"
_JINJA = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
_SCHEMA: dict[str, Any] = {"type": "object"}


def _schema(**schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def _recursive(depth: int) -> dict[str, Any]:
    return {"properties": {"a": _recursive(depth - 1)}} if depth else _SCHEMA


HOSTILE = (
    _chat("n", n=10**6),
    _chat("n beyond 64 bits", n=2**64),
    _chat("best of", best_of=10**6),
    _chat("logprobs", logprobs=True, top_logprobs=10**6),
    _chat("prompt logprobs", prompt_logprobs=-1),
    _chat("max tokens", max_tokens=10**12),
    _chat("stop", stop=["x"] * 10_000),
    _chat("logit bias", logit_bias={str(i): 1 for i in range(50_000)}),
    _chat("bad words", bad_words=["x"] * 50_000),
    _chat("messages", messages=[{"role": "user", "content": ""}] * 50_000),
    _chat("tools", tools=[{"type": "function", "function": {"name": "f"}}] * 10_000),
    _chat("top_k", top_k=2**40),
    _chat("template", chat_template=_JINJA),
    _chat("template keyword", chat_template_kwargs={"chat_template": _JINJA}),
    _chat("template tokenizing", chat_template_kwargs={"tokenize": True}),
    _chat("cache salt", cache_salt="other tenant"),
    _chat("kv transfer", kv_transfer_params={"do_remote_prefill": True, "remote_host": "x"}),
    _chat("xargs", vllm_xargs={"a": "b"}),
    _chat("request id", request_id="../../x"),
    _chat("priority", priority=-(10**9)),
    _chat("processor", mm_processor_kwargs={"trust_remote_code": True}),
    _chat("media io", media_io_kwargs={"video": {"num_frames": 10**9}}),
    _chat("unknown", nothing_like_it=1),
    _chat("prototype", __proto__={"polluted": True}),
    _chat("regex bomb", structured_outputs={"regex": "((a{1,99}){1,99}){1,99}"}),
    _chat("regex size", structured_outputs={"regex": "a" * 100_000}),
    _chat("grammar repeat", structured_outputs={"grammar": 'root ::= ("a"{999}){999}'}),
    _chat("backend", structured_outputs={"json_object": True, "_backend": "x"}),
    _chat("schema items", response_format=_schema(type="array", minItems=10**9)),
    _chat("schema depth", response_format=_schema(**_recursive(40))),
    _chat("schema pattern", response_format=_schema(type="string", pattern="(a{999}){999}")),
    _part("pickled image", type="image_embeds", image_embeds=_PICKLE),
    _part("pickled prompt", type="prompt_embeds", data=_PICKLE),
    _part("object", type="image_pil", image_pil=_PICKLE),
    _part("file", type="file", file={"file_data": "AAAA", "filename": "../../x"}),
    _part("audio", type="input_audio", input_audio={"data": "AAAA", "format": "wav"}),
    _part("hidden", type="text", text="x", uuid="1", image_url="file:///etc/passwd"),
    *map(_url, ADDRESSES),
    Hostile("embeds", COMPLETIONS, json.dumps({"prompt_embeds": _PICKLE}).encode()),
    Hostile("many prompts", COMPLETIONS, json.dumps({"prompt": ["x"] * 5000}).encode()),
    Hostile("negative token", COMPLETIONS, b'{"prompt": [-1], "max_tokens": 1}'),
    Hostile("unknown token", COMPLETIONS, b'{"prompt": [2147483647], "max_tokens": 1}', False),
    Hostile("no prompt", COMPLETIONS, b'{"prompt": [], "max_tokens": 1}', False),
    Hostile("no inputs", "/v1/embeddings", b'{"input": []}', False),
    Hostile("many inputs", "/v1/embeddings", json.dumps({"input": ["x"] * 50_000}).encode()),
    Hostile("token id", "/detokenize", b'{"tokens": [9223372036854775807]}'),
    Hostile("deep array", CHAT, b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    Hostile("deep object", CHAT, b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    Hostile("unclosed", CHAT, b'{"messages": ' + b"[" * 500_000),
    Hostile("containers", CHAT, b'{"messages": [' + b"{}," * 200_000 + b"{}]}"),
    Hostile("nan", CHAT, b'{"messages": [], "temperature": NaN}'),
    Hostile("infinity", CHAT, b'{"messages": [], "temperature": -Infinity}'),
    Hostile("utf-8", CHAT, b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}'),
    Hostile("overlong utf-8", CHAT, b'{"messages": "\xc0\xaf"}'),
    Hostile("surrogate", CHAT, b'{"messages": [{"role": "user", "content": "\\ud800"}]}'),
    Hostile("utf-16", CHAT, json.dumps(VALID[CHAT]).encode("utf-16")),
    Hostile("nul byte", CHAT, b'{"messages": "\x00"}'),
    Hostile("two keys", CHAT, b'{"messages": [], "n": 1, "n": 99999}'),
    Hostile("two escaped keys", CHAT, b'{"n": 1, "\\u006e": 99999}'),
    Hostile("number key", CHAT, b"{1: 2}"),
    Hostile("trailing", CHAT, json.dumps(VALID[CHAT]).encode() + b"{}"),
    Hostile("empty", CHAT, b""),
    Hostile("spaces", CHAT, b" " * 100_000),
    Hostile("form", CHAT, b"a=1&b=2"),
)
