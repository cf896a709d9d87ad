"""What a request may hold: allow-list, caps, shape; and the bytes that go on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serving.gateway.directory import ENDPOINTS
from serving.gateway.errors import ApiError
from serving.gateway.fields import DROPPED, rules_by_path
from serving.gateway.limits import RequestLimits
from serving.gateway.request import EngineRequest, RequestReader

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
EMBEDDINGS = "/v1/embeddings"
SAY = [{"role": "user", "content": "Hi"}]


def read(path: str, body: Any, **limits: Any) -> EngineRequest:
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    return RequestReader(RequestLimits(**limits)).read(path, encoded)


def refusal(path: str, body: Any, **limits: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read(path, body, **limits)
    assert caught.value.status == 400
    return caught.value


def part(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [fields]}]}


def test_an_unchanged_request_goes_on_byte_for_byte() -> None:
    body = b'{"model" : "m",  "messages":[{"role":"user","content":"\\u00e9"}], "seed":7 }'
    request = read(CHAT, body)
    assert (request.model, request.stream) == ("m", False)
    assert request.encode() is body


def test_what_is_set_is_all_that_changes() -> None:
    request = read(CHAT, b'{"model":"m","stream":true,"temperature":0.10,"messages":[ ]}')
    request.set("cache_salt", "tenant")
    request.include_usage()
    request.remove("nothing")
    assert "nothing" not in request
    assert not request.wants_usage
    assert request.encode() == (
        b'{"model":"m","stream":true,"temperature":0.10,"messages":[ ],'
        b'"cache_salt":"tenant","stream_options":{"include_usage":true}}'
    )


def test_other_stream_options_stay() -> None:
    options = {"continuous_usage_stats": True, "include_usage": True}
    request = read(COMPLETIONS, {"stream": True, "stream_options": options})
    request.include_usage()
    assert request.wants_usage
    assert request.value("stream_options") == options


@pytest.mark.parametrize(("path", "stream"), [(CHAT, False), (RESPONSES, True), (MESSAGES, True)])
def test_usage_is_asked_for_only_where_it_must_be(path: str, stream: bool) -> None:
    request = read(path, {"stream": stream})
    request.include_usage()
    assert "stream_options" not in request


def test_every_endpoint_has_rules() -> None:
    assert set(rules_by_path(RequestLimits())) == set(DROPPED) == ENDPOINTS


def test_fields_without_effect_end_here() -> None:
    request = read(CHAT, {"messages": SAY, "store": True, "metadata": {"a": "b"}})
    assert json.loads(request.encode()) == {"messages": SAY}


def test_a_field_without_effect_may_hold_anything() -> None:
    body: dict[str, Any] = {"input": "x", "stream_options": [None], "store": {"a": 1}}
    with pytest.raises(ApiError):
        read(RESPONSES, body)
    body["store"] = False
    assert json.loads(read(RESPONSES, body).encode()) == {"input": "x", "store": False}


def test_an_unknown_field_names_the_near_one() -> None:
    error = refusal(CHAT, {"messages": SAY, "max_token": 5})
    assert (error.param, error.code) == ("max_token", "unknown_parameter")
    assert "`max_tokens`" in error.message


@pytest.mark.parametrize(
    "name",
    ["cache_salt", "chat_template", "kv_transfer_params", "vllm_xargs", "request_id", "priority"],
)
def test_what_steers_the_server_is_refused_unless_configured(name: str) -> None:
    body = {"messages": SAY, name: 1}
    assert refusal(CHAT, body).param == name
    assert read(CHAT, body, allow_fields=[name]).value(name) == 1


def test_prompt_embeddings_are_refused() -> None:
    assert refusal(COMPLETIONS, {"prompt_embeds": "gASV"}).param == "prompt_embeds"


@pytest.mark.parametrize(
    ("path", "field", "good", "bad"),
    [
        (CHAT, "n", 8, 9),
        (CHAT, "n", 1, -1),
        (COMPLETIONS, "best_of", 8, 9),
        (CHAT, "max_tokens", 131_072, 131_073),
        (CHAT, "max_completion_tokens", 1, 10**30),
        (RESPONSES, "max_output_tokens", 1, 131_073),
        (MESSAGES, "max_tokens", 1, 131_073),
        (CHAT, "top_logprobs", 20, 21),
        (COMPLETIONS, "logprobs", 20, -1),
        (CHAT, "prompt_logprobs", 20, 21),
        (CHAT, "logprob_token_ids", [1] * 20, [1] * 21),
        (CHAT, "stop", ["x"] * 16, ["x"] * 17),
        (CHAT, "stop", "x" * 256, "x" * 257),
        (MESSAGES, "stop_sequences", ["x"], ["x" * 257]),
        (CHAT, "stop_token_ids", [5], [2**31]),
        (CHAT, "logit_bias", {"5": -100}, {"five": 1}),
        (CHAT, "logit_bias", {str(i): 1 for i in range(1024)}, {str(i): 1 for i in range(1025)}),
        (CHAT, "bad_words", ["x"] * 128, ["x"] * 129),
        (CHAT, "temperature", 2, "hot"),
        (CHAT, "temperature", 0, -1),
        (CHAT, "top_k", -1, 10**12),
        (CHAT, "seed", 2**63 - 1, 2**63),
        (CHAT, "stream", None, "yes"),
        (CHAT, "tools", [], [{"type": "function"}] * 129),
        (CHAT, "truncate_prompt_tokens", -1, -2),
        (CHAT, "user", "u" * 512, "u" * 513),
        (COMPLETIONS, "prompt", ["x"] * 64, ["x"] * 65),
        (COMPLETIONS, "prompt", [1, 2], [[-1]]),
        (EMBEDDINGS, "input", ["x"] * 2048, ["x"] * 2049),
        (EMBEDDINGS, "input", [[1], [2]], [[2**31]]),
        (EMBEDDINGS, "dimensions", 8, -8),
        ("/v1/rerank", "documents", [{"text": "x"}], ["x"] * 2049),
        ("/v1/score", "text_1", ["x"], ["x"] * 2049),
        ("/detokenize", "tokens", [1, 2], [-1]),
        (CHAT, "stream_options", {"include_usage": True}, {"include": True}),
        (CHAT, "chat_template_kwargs", {"enable_thinking": False}, {"tools": "{{ x }}"}),
        (CHAT, "structured_outputs", {"choice": ["a"]}, {"_backend": "x"}),
        (CHAT, "messages", SAY, SAY * 4097),
        (CHAT, "messages", SAY, "Hi"),
    ],
)
def test_a_cap_holds_exactly(path: str, field: str, good: Any, bad: Any) -> None:
    assert read(path, {field: good}).value(field) == good
    error = refusal(path, {field: bad})
    assert (error.param or "").startswith(field)
    assert f"`{field}" in error.message


@pytest.mark.parametrize("cap", [True, False])
def test_caps_are_configurable(cap: bool) -> None:
    if cap:
        assert refusal(CHAT, {"n": 3}, max_n=2).param == "n"
    else:
        assert read(CHAT, {"n": 100}, max_n=100).value("n") == 100


MEDIA = [
    {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}},
    {"type": "image_url", "image_url": {"url": "http://[::ffff:a9fe:a9fe]/"}},
    {"type": "image_url", "image_url": {"url": "http://2852039166/"}},
    {"type": "image_url", "image_url": "file:///etc/passwd"},
    {"type": "video_url", "video_url": {"url": "ftp://x/"}},
    {"type": "audio_url", "audio_url": {"url": "gopher://x/"}},
    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    {"type": "image", "source": {"type": "url", "url": "https://x/"}},
    {"type": "file", "file": {"file_data": "AAAA"}},
    {"type": "text", "text": "x", "uuid": "1", "image_url": "file:///etc/passwd"},
    {"image_url": "http://x/"},
    {"type": "image_embeds", "image_embeds": "gASV"},
    {"type": "prompt_embeds", "data": "gASV"},
    {"type": "image_pil", "image_pil": "x"},
]


@pytest.mark.parametrize("media", MEDIA, ids=[str(i) for i in range(len(MEDIA))])
@pytest.mark.parametrize("path", [CHAT, MESSAGES, "/tokenize", EMBEDDINGS])
def test_media_are_refused_wherever_they_come_from(path: str, media: dict[str, Any]) -> None:
    error = refusal(path, part(**media))
    assert (error.param or "").startswith("messages[0].content[0]")


@pytest.mark.parametrize(
    "item",
    [
        {"role": "user", "content": [{"type": "input_image", "image_url": "http://x/"}]},
        {"role": "user", "content": [{"type": "input_file", "file_url": "http://x/"}]},
        {"content": "x", "output": [{"type": "input_image", "image_url": "http://x/"}]},
        {"type": "computer_call_output", "output": {"type": "s", "image_url": "http://x/"}},
        {"content": [{"type": "tool_result", "content": [{"type": "image", "source": {}}]}]},
    ],
)
def test_media_are_found_in_every_kind_of_item(item: dict[str, Any]) -> None:
    assert (refusal(RESPONSES, {"input": [item]}).param or "").startswith("input[0].")


def test_configured_media_pass_by_their_source() -> None:
    inline = part(type="image_url", image_url={"url": "data:image/png;base64,AAAA"})
    assert "messages" in read(CHAT, inline, media=["data"])
    remote = part(type="image_url", image_url={"url": "https://x/"})
    assert refusal(CHAT, remote, media=["data"]).code == "media_refused"
    local = part(type="image_url", image_url={"url": "file:///etc/passwd"})
    assert refusal(CHAT, local, media=["data", "http", "https"]).code == "media_refused"
    embedded = part(type="image_embeds", image_embeds="gASV")
    assert refusal(CHAT, embedded, media=["data", "http", "https"]).code == "media_refused"


@pytest.mark.parametrize(
    "body",
    [
        b'{"temperature": NaN}',
        b'{"temperature": -Infinity}',
        b'{"temperature": 1e999}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "a\x00b"}',
        b'{"n": 01}',
        b"\xef\xbb\xbf{}",
        b'{"model": "\xed\xa0\x80"}',
        b"{} {}",
        b'{"a": "\\x41"}',
        b"null",
        b"7",
    ],
)
def test_what_is_not_json_stays_out(body: bytes) -> None:
    assert refusal(CHAT, body).status == 400


def test_of_two_alike_keys_the_last_is_checked_and_sent() -> None:
    assert refusal(CHAT, b'{"n": 1, "n": 1000000}').param == "n"
    request = read(CHAT, b'{"n": 1000000, "n": 1}')
    assert request.value("n") == json.loads(request.encode())["n"] == 1


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
def test_depth_is_limited_in_and_out_of_strings(opening: bytes) -> None:
    closing = opening.replace(b'"a":', b"").translate(bytes.maketrans(b"[{", b"]}"))[::-1]
    levels = 62 // (opening.count(b"[") + opening.count(b"{"))
    body = b'{"metadata":{"a":' + opening * levels + b"1" + closing * levels + b"}}"
    assert read(RESPONSES, body).path == RESPONSES
    beyond = body.replace(b"1", b'[[[["1"]]]]')
    assert "levels deep; at most 64" in refusal(RESPONSES, beyond).message
    text = json.dumps({"instructions": '"[{' * 500 + "\\", "input": '\\"[' * 100})
    assert read(RESPONSES, text.encode()).value("instructions").endswith("\\")


def test_the_number_of_containers_is_limited() -> None:
    body = b'{"metadata":{"a":[' + b",".join([b"[]"] * 70_000) + b"]}}"
    assert "objects and arrays" in refusal(RESPONSES, body).message


GRAMMARS: dict[str, Any] = {
    "regex": {"structured_outputs": {"regex": "(a{1,100}){1,100}"}},
    "three": {"structured_outputs": {"regex": "((a{30}){30}){30}"}},
    "ebnf": {"structured_outputs": {"grammar": "root ::= ([a-z]{999} ){999}"}},
    "schema": {"response_format": {"json_schema": {"schema": {"maxItems": 10**9}}}},
    "text": {"structured_outputs": {"json": '{"type": "array", "minItems": 100000}'}},
    "embedded": {"structured_outputs": {"json": '{"a":' * 900 + "1" + "}" * 900}},
    "pattern": {"response_format": {"json_schema": {"schema": {"pattern": "(x{999}){999}"}}}},
    "tool": {"tools": [{"function": {"parameters": {"maxLength": 10**7}}}]},
    "large": {"structured_outputs": {"grammar": "x" * 40_000}},
    "deep": {"response_format": {"a": json.loads("[" * 20 + "]" * 20)}},
    "nested": {
        "response_format": {"minItems": 100, "items": {"minItems": 100, "items": {"type": "null"}}}
    },
}


@pytest.mark.parametrize("body", GRAMMARS.values(), ids=GRAMMARS)
def test_grammars_that_blow_up_are_refused(body: dict[str, Any]) -> None:
    error = refusal(CHAT, {"messages": SAY} | body)
    assert (error.param or "").split(".")[0].split("[")[0] in body


ORDINARY: list[dict[str, Any]] = [
    {"regex": r"\d{3}-\d{4}"},
    {"regex": "[{]{2}.{0,200}(ab|c){1,50}\\)"},
    {"choice": ["{9999}"]},
    {"json": {"type": "array", "maxItems": 50, "items": {"maxLength": 60}}},
]


@pytest.mark.parametrize("grammar", ORDINARY, ids=["digits", "class", "choice", "schema"])
def test_ordinary_grammars_pass(grammar: dict[str, Any]) -> None:
    assert read(CHAT, {"structured_outputs": grammar}).value("structured_outputs") == grammar
