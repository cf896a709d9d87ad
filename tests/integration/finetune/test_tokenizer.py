"""Tokens and masks are those of transformers, for a real model's tokenizer and template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune.data.encode import encode
from finetune.data.rows import Conversation, Message
from finetune.data.template import ChatTemplate
from finetune.data.tokenizer import ChatTokenizer
from serving.home import Home
from serving.models import prepare
from tests.unit.finetune.models import CHATML, MARKED, QWEN

pytestmark = pytest.mark.engine

MESSAGES: list[Message] = [
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "Paris, bien sûr. 🗼"},
    {"role": "user", "content": "And  of Japan?\n\n"},
    {"role": "assistant", "content": "Tokyo:\n\n```python\nprint('東京')\n```"},
]
ANSWERS = [str(message["content"]) for message in MESSAGES[1::2]]


@pytest.fixture(scope="module")
def folder() -> Path:
    return prepare("smollm2-135m", Home.from_env(), progress=print).path


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("template", [None, CHATML, QWEN, MARKED])
def test_tokens_are_those_of_transformers(
    folder: Path, reference: Any, template: str | None, tmp_path: Path
) -> None:
    own = None
    if template is not None:
        own = tmp_path / "own.jinja"
        own.write_text(template)
    chat = ChatTokenizer.load(folder, template=own)
    (found,) = encode(Conversation(MESSAGES), chat)
    expected = reference.apply_chat_template(
        MESSAGES, chat_template=template, return_dict=True, return_assistant_tokens_mask=True
    )
    assert found.tokens == expected["input_ids"]
    if template == MARKED:
        assert found.trainable == [bool(flag) for flag in expected["assistant_masks"]]


def test_the_models_own_template_is_masked_exactly(folder: Path) -> None:
    chat = ChatTokenizer.load(folder)
    (found,) = encode(Conversation(MESSAGES), chat)
    learnt = [t for t, flag in zip(found.tokens, found.trainable, strict=True) if flag]
    assert chat.decode(learnt) == "".join(f"{text}<|im_end|>" for text in ANSWERS)
    assert isinstance(chat.template, ChatTemplate)
    prompt = chat.chat.render(MESSAGES[:1], generation_prompt=True).text
    start = chat.encode(prompt, []).tokens
    assert found.tokens[: len(start)] == start
    assert found.trainable.index(True) == len(start)
