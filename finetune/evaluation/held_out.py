"""What is measured on: held-out examples as token sequences and prompts with their references."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Literal

from finetune.config import DataConfig, EvaluationConfig
from finetune.data.check import Item, Pass
from finetune.data.encode import encode
from finetune.data.rows import Completion, Conversation, Example, Message, Preference
from finetune.data.tokenizer import ChatTokenizer, Encoded
from finetune.errors import Unrenderable


@dataclass(frozen=True)
class Prompt:
    """What an answer is asked for with: messages, or plain text that is continued."""

    messages: tuple[Message, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    text: str = ""

    @property
    def question(self) -> str:
        """The text of the last user, or the plain text."""
        index = self._last_user
        return self.text if index is None else self.messages[index]["content"]

    def asking(self, question: str) -> Prompt:
        """The same with another question."""
        index = self._last_user
        if index is None:
            return replace(self, text=question)
        asked = Message(**{**self.messages[index], "content": question})
        return replace(self, messages=(*self.messages[:index], asked, *self.messages[index + 1 :]))

    def tokens(self, chat: ChatTokenizer) -> list[int]:
        """As the server would send it to the model. Raises Unrenderable, TokenizerUnavailable."""
        if not self.messages:
            return [*chat.first, *chat.encode(self.text, []).tokens]
        text = chat.chat.render(self.messages, self.tools, generation_prompt=True).text
        return chat.encode(text, []).tokens

    @property
    def _last_user(self) -> int | None:
        users = [i for i, message in enumerate(self.messages) if message["role"] == "user"]
        return users[-1] if users else None


@dataclass(frozen=True)
class HeldOutExample:
    """One row."""

    source: str
    row: int
    sequences: tuple[Encoded, ...]
    """Whose trainable tokens are scored; of a preference, the preferred answer's."""
    rejected: Encoded | None
    """Of a preference, the other answer."""
    prompt: Prompt | None
    """None where the answer is no text: a tool call."""
    reference: str
    """The text that should be answered."""
    extra: Mapping[str, Any]
    """Fields that are not trained on."""

    @property
    def name(self) -> str:
        """Where it stands."""
        return f"{self.source}, row {self.row}"


@dataclass(frozen=True)
class HeldOut:
    """The examples, in an order that depends on their content alone."""

    examples: tuple[HeldOutExample, ...]
    available: int
    """Rows of that part of the data."""
    left_out: int
    """Of those chosen, rows longer than `max_length` or that the template refuses."""
    on: Literal["held_out", "train"]
    """Which part they are of."""


def held_out(
    data: DataConfig, evaluation: EvaluationConfig, chat: ChatTokenizer, seed: int
) -> HeldOut:
    """Choose and tokenise. Reads all the data and holds the chosen rows.

    Raises SourceUnreadable, MissingExtra and TokenizerUnavailable; faulty rows are passed over,
    since checking the data reports them.
    """
    if evaluation.on == "auto":
        found = _chosen(data, evaluation, chat, seed, "held_out")
        return found if found.available else _chosen(data, evaluation, chat, seed, "train")
    return _chosen(data, evaluation, chat, seed, evaluation.on)


def _chosen(
    data: DataConfig,
    evaluation: EvaluationConfig,
    chat: ChatTokenizer,
    seed: int,
    on: Literal["held_out", "train"],
) -> HeldOut:
    part = "validation" if on == "held_out" else "train"
    key = seed.to_bytes(8, "big")
    available = 0

    def ranked() -> Any:
        nonlocal available
        for item in Pass(data):
            if item.part == part:
                available += 1
                digest = blake2b(item.content, key=key, digest_size=16).digest()
                # Equal rows, where duplicates are kept, have equal digests; items do not compare.
                yield digest, available, item

    if evaluation.max_examples is None:
        chosen = sorted(ranked())
    else:
        chosen = heapq.nsmallest(evaluation.max_examples, ranked())
    found = [_example(item, data.max_length, chat) for _, _, item in chosen]
    examples = tuple(each for each in found if each is not None)
    return HeldOut(examples, available, len(found) - len(examples), on)


def _example(item: Item, max_length: int, chat: ChatTokenizer) -> HeldOutExample | None:
    try:
        sequences = encode(item.example, chat)
        prompt, reference = _prompt(item.example)
        if prompt is not None:
            prompt.tokens(chat)
    except Unrenderable:
        return None
    if any(len(each.tokens) > max_length or not any(each.trainable) for each in sequences):
        return None
    rejected = sequences.pop() if isinstance(item.example, Preference) else None
    return HeldOutExample(
        source=item.source,
        row=item.row,
        sequences=tuple(sequences),
        rejected=rejected,
        prompt=prompt,
        reference=reference,
        extra=item.extra,
    )


def _prompt(example: Example) -> tuple[Prompt | None, str]:
    match example:
        case Completion():
            return Prompt(text=example.prompt), example.completion
        case Preference():
            prompt, answer = example.prompt, example.chosen[0]
        case Conversation():
            prompt, answer = example.messages[:-1], example.messages[-1]
    if answer.get("tool_calls") or not prompt:
        return None, answer["content"]
    return Prompt(tuple(prompt), tuple(example.tools)), answer["content"]
