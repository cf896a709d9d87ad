"""Which fields each endpoint passes on to the engine, and the check of each.

Taken from the request classes of vLLM 0.32 (`vllm/entrypoints/**/protocol.py`), less what
steers the server rather than the answer. Three kinds: passed on after a check; known to the
API but without effect in the engine, so dropped; refused. What is in none is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from msgspec import Meta, Struct

from serving.gateway.checks import (
    INT32_MAX,
    Check,
    anything,
    grammar,
    integer,
    listed,
    number,
    structured_outputs,
    template_kwargs,
    text,
    tools,
    typed,
)
from serving.gateway.content import ContentChecks
from serving.gateway.limits import OptInField, RequestLimits

Rule = Check
Rules = dict[str, Rule]

_OPT_IN = frozenset(get_args(OptInField))
_REASONS = {
    "cache_salt": "set by the server",
    "functions": "deprecated; use `tools`",
    "function_call": "deprecated; use `tool_choice`",
    "mcp_servers": "the server calls no other servers",
    "prompt_embeds": "embeddings in place of text are not accepted",
    "web_search_options": "the server does not search the web",
}
_OPENAI_EXTRAS = frozenset(
    {"metadata", "modalities", "prediction", "prompt_cache_key", "prompt_cache_options"}
    | {"prompt_cache_retention", "safety_identifier", "service_tier", "store", "verbosity"}
)
_ANTHROPIC_EXTRAS = frozenset(
    {"betas", "cache_control", "container", "context_management", "inference_geo", "service_tier"}
    | {"speed", "anthropic_version"}
)
_POOLING_EXTRAS = frozenset({"safety_identifier", "metadata"})

DROPPED: Mapping[str, frozenset[str]] = {
    "/v1/chat/completions": _OPENAI_EXTRAS,
    "/v1/completions": _OPENAI_EXTRAS,
    "/v1/responses": _OPENAI_EXTRAS - {"metadata", "prompt_cache_key", "service_tier", "store"}
    | {"moderation", "context_management", "stream_options"},
    "/v1/messages": _ANTHROPIC_EXTRAS,
    "/v1/messages/count_tokens": _ANTHROPIC_EXTRAS
    | {"max_tokens", "metadata", "stop_sequences", "stream", "temperature", "top_k", "top_p"},
    "/v1/embeddings": _POOLING_EXTRAS,
    "/v1/rerank": _POOLING_EXTRAS | {"max_chunks_per_doc", "rank_fields"},
    "/v1/score": _POOLING_EXTRAS,
    "/tokenize": frozenset({"user"}),
    "/detokenize": frozenset({"user"}),
}
"""Fields of these APIs that the engine ignores; they end at the gateway."""


class _StreamOptions(Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: bool | None = None


class _Repetition(Struct, forbid_unknown_fields=True):
    max_pattern_size: Annotated[int, Meta(ge=0, le=1024)] = 0
    min_pattern_size: Annotated[int, Meta(ge=0, le=1024)] = 0
    min_count: Annotated[int, Meta(ge=0, le=1024)] = 0


def refusal(name: str) -> str | None:
    """Why a field that is known is not accepted; None if it is not known."""
    if name in _REASONS:
        return f"not accepted: {_REASONS[name]}"
    return "not accepted here" if name in _OPT_IN else None


def rules_by_path(limits: RequestLimits) -> Mapping[str, Mapping[str, Rule]]:
    """The checks of every field of every endpoint."""
    chosen = {
        "/v1/chat/completions": _chat(limits),
        "/v1/completions": _completions(limits),
        "/v1/responses": _responses(limits),
        "/v1/messages": _messages(limits),
        "/v1/messages/count_tokens": _count_tokens(limits),
        "/v1/embeddings": _embeddings(limits),
        "/v1/rerank": _rerank(limits),
        "/v1/score": _score(limits),
        "/tokenize": _tokenize(limits),
        "/detokenize": _base(limits)
        | {"tokens": listed(Annotated[int, Meta(ge=0, le=INT32_MAX)], limits.max_input_tokens)},
    }
    allowed: Rules = dict.fromkeys(limits.allow_fields, anything)
    if "priority" in allowed:
        allowed["priority"] = integer(-INT32_MAX, INT32_MAX)
    return {path: rules | allowed for path, rules in chosen.items()}


def _base(limits: RequestLimits) -> Rules:
    return {"model": text(512)}


def _sampling(limits: RequestLimits) -> Rules:
    """What all the generating APIs share."""
    string = Annotated[str, Meta(max_length=limits.max_stop_chars)]
    strings = Annotated[list[string], Meta(max_length=limits.max_stop)]
    return {
        "stream": typed(bool),
        "temperature": number(0, 100),
        "top_p": number(0, 1),
        "top_k": integer(-1, INT32_MAX),
        "min_p": number(0, 1),
        "frequency_penalty": number(-100, 100),
        "presence_penalty": number(-100, 100),
        "repetition_penalty": number(0, 100),
        "seed": integer(-(2**63), 2**63 - 1),
        "stop": typed(string | strings),
        "stop_token_ids": _token_ids(limits.max_stop),
        "include_stop_str_in_output": typed(bool),
        "ignore_eos": typed(bool),
        "skip_special_tokens": typed(bool),
        "logit_bias": typed(_logit_bias(limits)),
        "user": text(limits.max_string_chars),
        "watermarking": typed(bool),
        "structured_outputs": structured_outputs(limits),
    }


def _openai(limits: RequestLimits) -> Rules:
    """What chat and plain completions share beyond that."""
    word = Annotated[str, Meta(max_length=limits.max_stop_chars)]
    tokens = integer(0, limits.max_output_tokens)
    return (
        _base(limits)
        | _sampling(limits)
        | _truncation(limits)
        | {
            "n": integer(0, limits.max_n),
            "max_tokens": tokens,
            "min_tokens": tokens,
            "thinking_token_budget": integer(-1, limits.max_output_tokens),
            "stream_options": typed(_StreamOptions),
            "stream_interval": integer(1, 1024),
            "length_penalty": number(-100, 100),
            "spaces_between_special_tokens": typed(bool),
            "add_special_tokens": typed(bool),
            "echo": typed(bool),
            "prompt_logprobs": integer(0, limits.max_logprobs),
            "logprob_token_ids": _token_ids(limits.max_logprobs),
            "allowed_token_ids": _token_ids(limits.max_allowed_token_ids),
            "bad_words": listed(word, limits.max_bad_words),
            "response_format": grammar("response_format", limits),
            "return_tokens_as_token_ids": typed(bool),
            "return_token_ids": typed(bool),
            "return_token_offsets": typed(bool),
            "repetition_detection": typed(_Repetition),
        }
    )


def _chat(limits: RequestLimits) -> Rules:
    content = ContentChecks(limits)
    return (
        _openai(limits)
        | _template(limits)
        | {
            "messages": content.messages,
            "max_completion_tokens": integer(0, limits.max_output_tokens),
            "logprobs": typed(bool),
            "top_logprobs": integer(0, limits.max_logprobs),
            "tools": tools(limits),
            "tool_choice": typed(str | dict[str, Any]),
            "parallel_tool_calls": typed(bool),
            "reasoning_effort": text(32),
            "include_reasoning": typed(bool),
            "documents": listed(dict[str, str], limits.max_inputs),
            "return_prompt_text": typed(bool),
        }
    )


def _completions(limits: RequestLimits) -> Rules:
    return _openai(limits) | {
        "prompt": ContentChecks(limits).prompt,
        "best_of": integer(0, limits.max_n),
        "logprobs": integer(0, limits.max_logprobs),
        "suffix": typed(str),
    }


def _responses(limits: RequestLimits) -> Rules:
    return (
        _base(limits)
        | _sampling(limits)
        | {
            "input": ContentChecks(limits).items,
            "instructions": typed(str),
            "max_output_tokens": integer(0, limits.max_output_tokens),
            "max_tool_calls": integer(0, 1024),
            "top_logprobs": integer(0, limits.max_logprobs),
            "tools": tools(limits),
            "tool_choice": typed(str | dict[str, Any]),
            "parallel_tool_calls": typed(bool),
            "text": grammar("text", limits),
            "reasoning": typed(dict[str, Any]),
            "include_reasoning": typed(bool),
            "include": listed(Annotated[str, Meta(max_length=64)], 32),
            "metadata": typed(dict[str, Any]),
            "previous_response_id": text(128),
            "prompt_cache_key": text(limits.max_string_chars),
            "service_tier": text(32),
            "store": typed(bool),
            "background": typed(bool),
            "truncation": typed(Literal["auto", "disabled"]),
            "chat_template_kwargs": template_kwargs(limits),
        }
    )


def _messages(limits: RequestLimits) -> Rules:
    word = Annotated[str, Meta(max_length=limits.max_stop_chars)]
    return _count_tokens(limits) | {
        "max_tokens": integer(0, limits.max_output_tokens),
        "metadata": typed(dict[str, Any]),
        "stop_sequences": listed(word, limits.max_stop),
        "stream": typed(bool),
        "temperature": number(0, 100),
        "top_k": integer(-1, INT32_MAX),
        "top_p": number(0, 1),
        "watermarking": typed(bool),
    }


def _count_tokens(limits: RequestLimits) -> Rules:
    content = ContentChecks(limits)
    return _base(limits) | {
        "messages": content.messages,
        "system": content.system,
        "output_config": grammar("output_config", limits),
        "thinking": typed(dict[str, Any]),
        "tool_choice": typed(dict[str, Any]),
        "tools": tools(limits),
        "chat_template_kwargs": template_kwargs(limits),
    }


def _pooling(limits: RequestLimits) -> Rules:
    return (
        _base(limits)
        | _truncation(limits)
        | {
            "user": text(limits.max_string_chars),
            "padding": typed(Literal["max_length", "do_not_pad"]),
            "use_activation": typed(bool),
        }
    )


def _embeddings(limits: RequestLimits) -> Rules:
    content = ContentChecks(limits)
    return (
        _pooling(limits)
        | _template(limits)
        | {
            "input": content.input,
            "messages": content.messages,
            "encoding_format": text(16),
            "embed_dtype": text(16),
            "endianness": text(16),
            "dimensions": integer(0, 65_536),
        }
    )


def _scoring(limits: RequestLimits) -> Rules:
    return _pooling(limits) | {
        "max_tokens_per_query": integer(0, limits.max_input_tokens),
        "max_tokens_per_doc": integer(0, limits.max_input_tokens),
        "instruction": typed(str),
        "chat_template_kwargs": template_kwargs(limits),
    }


def _rerank(limits: RequestLimits) -> Rules:
    content = ContentChecks(limits)
    return _scoring(limits) | {
        "query": content.documents_of("query"),
        "documents": content.documents_of("documents"),
        "top_n": integer(0, INT32_MAX),
        "return_documents": typed(bool),
    }


def _score(limits: RequestLimits) -> Rules:
    content = ContentChecks(limits)
    names = ("text_1", "text_2", "data_1", "data_2", "queries", "documents", "items")
    return _scoring(limits) | {name: content.documents_of(name) for name in names}


def _tokenize(limits: RequestLimits) -> Rules:
    return (
        _base(limits)
        | _template(limits)
        | {
            "prompt": typed(str),
            "messages": ContentChecks(limits).messages,
            "tools": tools(limits),
            "return_token_strs": typed(bool),
        }
    )


def _template(limits: RequestLimits) -> Rules:
    return {
        "add_generation_prompt": typed(bool),
        "continue_final_message": typed(bool),
        "add_special_tokens": typed(bool),
        "chat_template_kwargs": template_kwargs(limits),
    }


def _truncation(limits: RequestLimits) -> Rules:
    return {
        "truncate_prompt_tokens": integer(-1, limits.max_input_tokens),
        "truncation_side": typed(Literal["left", "right"]),
    }


def _token_ids(count: int) -> Rule:
    return listed(Annotated[int, Meta(ge=0, le=INT32_MAX)], count)


def _logit_bias(limits: RequestLimits) -> Any:
    token = Annotated[str, Meta(pattern=r"^\d{1,9}$")]
    bias = Annotated[float, Meta(ge=-100, le=100)]
    return Annotated[dict[token, bias], Meta(max_length=limits.max_logit_bias)]
