"""Checks of what models read: messages, prompts, inputs, documents; and the media in them."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from serving.gateway.checks import INT32_MAX, Check, at_most
from serving.gateway.errors import ApiError
from serving.gateway.limits import RequestLimits

TEXT_PARTS = frozenset(
    {"text", "input_text", "output_text", "refusal", "thinking", "redacted_thinking"}
    | {"tool_use", "tool_result", "tool_reference", "reasoning_text", "summary_text"}
)
"""Types of content parts that hold no media."""
_MEDIA_PARTS = frozenset(
    {"image", "image_url", "input_image", "audio_url", "input_audio", "video_url"}
)
_EMBEDDED = ("image_pil", "image_embeds", "audio_embeds", "video_embeds", "prompt_embeds")
_LOCATORS = ("image_url", "audio_url", "video_url", "input_audio", "source")
_FILES = ("file", "file_id", "file_url", "file_data", "image")
_media_of = attrgetter(*_EMBEDDED, *_FILES, *_LOCATORS)
_NO_MEDIA = (UNSET,) * len((*_EMBEDDED, *_FILES, *_LOCATORS))


class _Part(msgspec.Struct):
    """One content part; of the fields that can hold media, only whether they are there."""

    type: str | None = None
    content: str | list[str | _Part] | None = None
    image_url: Raw | UnsetType = UNSET
    audio_url: Raw | UnsetType = UNSET
    video_url: Raw | UnsetType = UNSET
    input_audio: Raw | UnsetType = UNSET
    source: Raw | UnsetType = UNSET
    image_pil: Raw | UnsetType = UNSET
    image_embeds: Raw | UnsetType = UNSET
    audio_embeds: Raw | UnsetType = UNSET
    video_embeds: Raw | UnsetType = UNSET
    prompt_embeds: Raw | UnsetType = UNSET
    image: Raw | UnsetType = UNSET
    file: Raw | UnsetType = UNSET
    file_id: Raw | UnsetType = UNSET
    file_url: Raw | UnsetType = UNSET
    file_data: Raw | UnsetType = UNSET


class _Message(msgspec.Struct):
    """A chat message, or an item of a response's input; `output` is a tool's."""

    content: str | list[str | _Part] | None = None
    output: str | list[str | _Part] | _Part | None = None


class _Document(msgspec.Struct):
    """A text to rank, as text or in parts."""

    text: str | None = None
    content: list[str | _Part] | None = None


class ContentChecks:
    """Checks of fields that carry what models read: messages, prompts, inputs, documents."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        token = Annotated[int, Meta(ge=0, le=INT32_MAX)]
        item = str | token | list[token] | _Message
        self._messages = msgspec.json.Decoder(list[_Message] | None).decode
        self._items = msgspec.json.Decoder(str | list[str | _Message] | None).decode
        self._parts = msgspec.json.Decoder(str | list[str | _Part] | None).decode
        self._inputs: Any = msgspec.json.Decoder(str | list[item] | None).decode
        document = str | _Document
        self._documents: Any = msgspec.json.Decoder(document | list[document] | None).decode

    def messages(self, raw: Raw) -> None:
        """`messages`."""
        self._conversation("messages", self._messages(raw) or ())

    def items(self, raw: Raw) -> None:
        """`input` of a response."""
        given = self._items(raw)
        if isinstance(given, list):
            self._conversation("input", given)

    def system(self, raw: Raw) -> None:
        """`system`: text or parts."""
        given = self._parts(raw)
        if isinstance(given, list):
            self._check_parts("system", given)

    def prompt(self, raw: Raw) -> None:
        """`prompt` of completions: texts or token ids."""
        self._texts("prompt", self._inputs(raw), self._limits.max_prompts)

    def input(self, raw: Raw) -> None:
        """`input` of embeddings: texts, token ids or messages."""
        self._texts("input", self._inputs(raw), self._limits.max_inputs)

    def documents_of(self, name: str) -> Check:
        """A field of texts to rank or score."""

        def check(raw: Raw) -> None:
            given = self._documents(raw)
            documents = given if isinstance(given, list) else [given]
            at_most(name, "texts", len(documents), self._limits.max_inputs)
            for index, document in enumerate(documents):
                if isinstance(document, _Document) and document.content:
                    self._check_parts(f"{name}[{index}].content", document.content)

        return check

    def _texts(self, name: str, given: Any, limit: int) -> None:
        if not isinstance(given, list):
            return
        tokens = sum(
            1 if isinstance(i, int) else len(i) if isinstance(i, list) else 0 for i in given
        )
        at_most(name, "token ids", tokens, self._limits.max_input_tokens)
        if given and not isinstance(given[0], int):
            at_most(name, "inputs", len(given), limit)
        for index, message in enumerate(given):
            if isinstance(message, _Message):
                self._message(f"{name}[{index}]", message)

    def _conversation(self, name: str, messages: Sequence[str | _Message]) -> None:
        at_most(name, "messages", len(messages), self._limits.max_messages)
        for index, message in enumerate(messages):
            if isinstance(message, _Message) and not self._is_plain(message):
                self._message(f"{name}[{index}]", message)

    def _is_plain(self, message: _Message) -> bool:
        """Spares nearly all messages the closer look."""
        content = message.content
        if message.output is not None:
            return False
        if not isinstance(content, list):
            return True
        few = len(content) <= self._limits.max_parts
        return few and all(isinstance(part, str) or _plain(part) for part in content)

    def _message(self, where: str, message: _Message) -> None:
        if isinstance(message.content, list):
            self._check_parts(f"{where}.content", message.content)
        if isinstance(message.output, list):
            self._check_parts(f"{where}.output", message.output)
        elif isinstance(message.output, _Part):
            self._check_parts(f"{where}.output", [message.output], any_type=True)

    def _check_parts(self, where: str, parts: list[str | _Part], *, any_type: bool = False) -> None:
        at_most(where, "parts", len(parts), self._limits.max_parts)
        for index, part in enumerate(parts):
            if isinstance(part, str) or _plain(part):
                continue
            place = f"{where}[{index}]"
            self._check_media(place, part)
            if (
                not any_type
                and part.type not in TEXT_PARTS
                and part.type not in _MEDIA_PARTS | {None}
            ):
                shown = str(part.type)[:40]
                raise ApiError(
                    400, f"`{place}.type`: {shown!r} is not supported", param=f"{place}.type"
                )
            if isinstance(part.content, list):
                self._check_parts(f"{place}.content", part.content)

    def _check_media(self, where: str, part: _Part) -> None:
        """Refuse media that the configuration does not let in."""
        for name in (*_EMBEDDED, *_FILES):
            if getattr(part, name) is not UNSET:
                raise _no_media(f"{where}.{name}", "is not accepted")
        if part.type == "prompt_embeds":
            raise _no_media(where, "is not accepted")
        for name in _LOCATORS:
            found = getattr(part, name)
            if found is not UNSET:
                self._check_source(f"{where}.{name}", name, msgspec.json.decode(found))
        if part.type in _MEDIA_PARTS and not self._limits.media:
            raise _no_media(where, "media are not configured here")

    def _check_source(self, where: str, name: str, value: Any) -> None:
        url = value.get("url") if isinstance(value, dict) else value
        inline = name == "input_audio" or (
            name == "source" and isinstance(value, dict) and value.get("type") == "base64"
        )
        scheme = "data" if inline else str(url).partition(":")[0].strip().lower()
        if scheme not in self._limits.media:
            allowed = ", ".join(self._limits.media) or "no media are configured here"
            raise _no_media(where, f"a source of this kind is not accepted (accepted: {allowed})")


def _plain(part: _Part) -> bool:
    """Text without a trace of media, as nearly every part is."""
    is_text = part.type in TEXT_PARTS and not isinstance(part.content, list)
    return is_text and _media_of(part) == _NO_MEDIA


def _no_media(where: str, why: str) -> ApiError:
    return ApiError(400, f"`{where}`: {why}", code="media_refused", param=where)
