"""A base model's tokenizer and chat template, read from its folder without loading torch."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, processors

from finetune.data.template import ChatTemplate
from finetune.errors import TokenizerUnavailable, Unrenderable

Span = tuple[int, int]
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token")


@dataclass(frozen=True, slots=True)
class Encoded:
    """One sequence. `trainable[i]` says whether token i is learnt; the first never is, since
    nothing precedes it."""

    tokens: list[int]
    trainable: list[bool]


@dataclass(frozen=True)
class ChatTokenizer:
    """Text to tokens, and conversations to text, as the server does both."""

    name: str
    tokenizer: Tokenizer
    template: ChatTemplate | None
    eos_id: int | None
    special: re.Pattern[str]
    """Matches every control token."""
    first: tuple[int, ...] = ()
    """What the tokenizer puts before plain text (Llama's `<|begin_of_text|>`)."""

    @staticmethod
    def load(
        folder: Path, *, template: Path | None = None, variables: dict[str, Any] | None = None
    ) -> ChatTokenizer:
        """Read `tokenizer.json`, `tokenizer_config.json` and the chat template of a model.

        `template` replaces the template, `variables` are handed to it. Raises TokenizerUnavailable.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise TokenizerUnavailable(
                f"{folder} has no tokenizer.json: name a model's folder, or save the tokenizer "
                "there with transformers' AutoTokenizer(...).save_pretrained"
            )
        settings = _json(folder / "tokenizer_config.json")
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as exc:  # tokenizers raises nothing more specific
            raise TokenizerUnavailable(f"{path} cannot be read: {exc}") from exc
        named = {name: text for name in _SPECIAL if (text := _token_text(settings.get(name)))}
        source = _template(folder, settings, template)
        chat = None if source is None else ChatTemplate(source, named | (variables or {}))
        return ChatTokenizer.build(str(folder), tokenizer, chat, named.get("eos_token"))

    @staticmethod
    def build(
        name: str, tokenizer: Tokenizer, template: ChatTemplate | None, eos: str | None
    ) -> ChatTokenizer:
        """From a tokenizer in memory, which is changed: its post-processor is replaced."""
        first = tuple(tokenizer.encode("").ids)
        # Offsets must cover the space that begins a word, or a boundary before it is missed.
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        added = tokenizer.get_added_tokens_decoder().values()
        texts = sorted({token.content for token in added if token.special}, key=len, reverse=True)
        special = re.compile("|".join(map(re.escape, texts)) or r"(?!)")
        eos_id = None if eos is None else tokenizer.token_to_id(eos)
        return ChatTokenizer(name, tokenizer, template, eos_id, special, first)

    @property
    def chat(self) -> ChatTemplate:
        """The template. Raises TokenizerUnavailable where the model has none."""
        if self.template is None:
            raise TokenizerUnavailable(
                f"{self.name} has no chat template: name one in data.chat_template, or train "
                "plain text with data.completions: text"
            )
        return self.template

    def ends_with_control_token(self, found: Encoded) -> bool:
        """Whether the last token that is learnt is one that can end a turn."""
        learnt = [token for token, flag in zip(found.tokens, found.trainable, strict=True) if flag]
        return bool(learnt) and self.special.fullmatch(self.decode(learnt[-1:])) is not None

    def decode(self, tokens: list[int]) -> str:
        """The text of tokens, control tokens included."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=False))

    def encode(self, text: str, learnt: list[Span]) -> Encoded:
        """Tokens of `text`, those in the character ranges `learnt` trainable.

        A token that would reach over an edge of a range is avoided by tokenizing the text in
        pieces: just so the server tokenizes a prompt on its own before it generates. Raises
        Unrenderable where that would give another text.
        """
        found = self.tokenizer.encode(text, add_special_tokens=False)
        starts = [start for start, _ in found.offsets]
        ends = [end for _, end in found.offsets]
        trainable = [False] * len(starts)
        for low, high in learnt:
            first, last = bisect_left(starts, low), bisect_left(starts, high)
            if (first and ends[first - 1] > low) or (last and ends[last - 1] > high):
                return self._encode_pieces(text, learnt, found.ids)
            trainable[first:last] = [True] * (last - first)
        return Encoded(found.ids, trainable)

    def _encode_pieces(self, text: str, learnt: list[Span], whole: list[int]) -> Encoded:
        edges = sorted({0, len(text), *(edge for span in learnt for edge in span)})
        tokens: list[int] = []
        trainable: list[bool] = []
        for low, high in pairwise(edges):
            ids = self.tokenizer.encode(text[low:high], add_special_tokens=False).ids
            tokens += ids
            trainable += [any(a <= low < b for a, b in learnt)] * len(ids)
        if self.decode(tokens) != self.decode(whole):
            raise Unrenderable(
                "the tokenizer joins the prompt's end and the answer's beginning in one token: "
                "remove the white space between them"
            )
        return Encoded(tokens, trainable)


def _template(folder: Path, settings: dict[str, Any], replaced: Path | None) -> str | None:
    path = replaced or folder / "chat_template.jinja"
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        if replaced is not None:
            raise TokenizerUnavailable(f"cannot read the chat template {path}: {exc}") from exc
    given = settings.get("chat_template")
    if isinstance(given, list):
        named = {item.get("name"): item.get("template") for item in given}
        given = named.get("default")
    return given if isinstance(given, str) else None


def _token_text(value: Any) -> str | None:
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise TokenizerUnavailable(f"{path} cannot be read: {exc}") from exc
    return found if isinstance(found, dict) else {}
