"""`RequestLimits`: what one request may ask for. Applied by `fields.py` and what it imports."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from configs import StrictModel

OptInField = Literal[
    "cache_salt",
    "chat_template",
    "chat_template_kwargs",
    "ec_transfer_params",
    "enable_response_messages",
    "kv_transfer_params",
    "media_io_kwargs",
    "mm_payload",
    "mm_processor_kwargs",
    "previous_input_messages",
    "priority",
    "prompt_embeds",
    "request_id",
    "return_mm_kwargs",
    "routed_experts_prompt_start",
    "session_id",
    "use_beam_search",
    "vllm_xargs",
]
"""Fields that the engine accepts and that are refused unless `allow_fields` names them."""

MediaSource = Literal["data", "http", "https"]


class RequestLimits(StrictModel):
    """Caps on the fields of a request. Beyond one: 400, naming field and cap."""

    max_json_depth: int = Field(64, ge=4, le=500)
    """Objects and arrays inside one another, in the whole body."""
    max_json_containers: int = Field(65_536, ge=16)
    """Objects and arrays in the whole body."""
    max_messages: int = Field(4096, ge=1)
    """Messages of a conversation, or items of a response's input."""
    max_parts: int = Field(1024, ge=1)
    """Content parts of one message."""
    max_n: int = Field(8, ge=1)
    """Answers to one prompt: `n`, `best_of`."""
    max_output_tokens: int = Field(131_072, ge=1)
    """`max_tokens`, `max_completion_tokens`, `max_output_tokens`, `min_tokens`,
    `thinking_token_budget`; the model's context length holds besides."""
    max_logprobs: int = Field(20, ge=0)
    """Alternatives at each token: `logprobs`, `top_logprobs`, `prompt_logprobs`,
    `logprob_token_ids`."""
    max_prompts: int = Field(64, ge=1)
    """Prompts of one completions request."""
    max_inputs: int = Field(2048, ge=1)
    """Texts of one embeddings, rerank or score request; documents of a chat."""
    max_input_tokens: int = Field(1_048_576, ge=1)
    """Token ids given in place of text."""
    max_stop: int = Field(16, ge=0)
    """Stop strings, `stop_token_ids`."""
    max_stop_chars: int = Field(256, ge=1)
    """Characters of one stop string."""
    max_logit_bias: int = Field(1024, ge=0)
    """Entries of `logit_bias`."""
    max_bad_words: int = Field(128, ge=0)
    """Entries of `bad_words`, each at most `max_stop_chars` long."""
    max_allowed_token_ids: int = Field(65_536, ge=0)
    """Entries of `allowed_token_ids`."""
    max_tools: int = Field(128, ge=0)
    """Tools of one request."""
    max_tools_bytes: int = Field(262_144, ge=0)
    """JSON of `tools`."""
    max_grammar_bytes: int = Field(32_768, ge=0)
    """JSON of `response_format`, `structured_outputs`, `text`, `output_config`, and of one tool's
    schema."""
    max_grammar_depth: int = Field(16, ge=1)
    """Objects and arrays inside one another in one of these."""
    max_grammar_repeat: int = Field(4096, ge=1)
    """Copies that the bounds of a schema, regex or grammar may unroll to: `{2,9}`, `maxItems`."""
    max_string_chars: int = Field(512, ge=16)
    """Characters of identifiers and labels: `user`, `safety_identifier`."""
    media: tuple[MediaSource, ...] = ()
    """Where images, audio and video in messages may come from; by default nowhere. `http` and
    `https` make the engine fetch addresses that clients name: set the engine's own
    `allowed_media_domains` with them. `file:` is never allowed."""
    chat_template_kwargs: tuple[str, ...] = ("enable_thinking", "thinking")
    """Keys of `chat_template_kwargs` that requests may set. `allow_fields` opens all of them."""
    allow_fields: tuple[OptInField, ...] = ()
    """Fields refused by default that requests may use after all."""
