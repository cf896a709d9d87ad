"""Hashes of content: what counts as the same row, which side it is on, which version this is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from finetune.data.rows import Completion, Conversation, Example, Message, Preference

_BYTES = 16


def content_digest(example: Example) -> bytes:
    """16 bytes of BLAKE2b over everything that is trained on, in canonical JSON.

    Raises UnicodeEncodeError if a text holds half of a surrogate pair, which no tokenizer takes.
    """
    match example:
        case Conversation():
            return _digest(["conversation", example.messages, example.tools])
        case Completion():
            return _digest(["completion", example.prompt, example.completion])
        case Preference():
            answers = [example.chosen, example.rejected]
            return _digest(["preference", example.prompt, *answers, example.tools])


def prompt_digest(example: Example) -> bytes:
    """As `content_digest`, of what comes before the last answer; of all, if that is no prompt."""
    match example:
        case Conversation():
            prompt = example.messages[:-1]
            return _prompt_digest(prompt, example.tools) or content_digest(example)
        case Completion():
            return _digest(["text", example.prompt]) if example.prompt else content_digest(example)
        case Preference():
            return _prompt_digest(example.prompt, example.tools) or content_digest(example)


def is_held_out(prompt: bytes, fraction: float) -> bool:
    """Whether a row with this prompt is validation data.

    It depends on nothing else: rows that are added move none, and a larger fraction only adds.
    """
    return int.from_bytes(prompt[:8], "big") < fraction * 2**64


def version(train: Iterable[bytes], validation: Iterable[bytes]) -> str:
    """SHA-256, in hexadecimal, of the rows of both parts.

    It does not depend on the order of rows or on how they are spread over files, since training
    does not either: `TokenisedPart.order` shuffles by content.
    Neither do fields that are not trained on count. A row that stands twice counts twice.
    """
    total = hashlib.sha256()
    for part, digests in (("train", train), ("validation", validation)):
        total.update(part.encode())
        for digest in sorted(digests):
            total.update(digest)
    return total.hexdigest()


def _prompt_digest(messages: list[Message], tools: list[dict[str, Any]]) -> bytes | None:
    asks = any(message["role"] == "user" for message in messages)
    return _digest(["prompt", messages, tools]) if asks else None


def _digest(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=_BYTES).digest()
