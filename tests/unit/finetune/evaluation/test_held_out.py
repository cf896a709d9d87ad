"""Which rows are measured, and what becomes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetune.config import DataConfig, EvaluationConfig
from finetune.data.rows import Message
from finetune.evaluation.held_out import HeldOut, Prompt, held_out
from tests.unit.finetune.data.test_check import data, row, write
from tests.unit.finetune.models import CHATML, QWEN, chat_tokenizer


def chosen(config: DataConfig, seed: int = 0, template: str = CHATML, **evaluation: Any) -> HeldOut:
    return held_out(config, EvaluationConfig(**evaluation), chat_tokenizer(template), seed)


def split(tmp_path: Path, rows: list[dict[str, Any]]) -> DataConfig:
    train = write(tmp_path / "train.jsonl", [row("t")])
    return data(train, validation=(write(tmp_path / "held.jsonl", rows),))


def test_the_choice_is_by_content_and_not_by_order(tmp_path: Path) -> None:
    rows = [row(f"question {i}", f"answer {i}") for i in range(50)]
    found = chosen(split(tmp_path, rows), max_examples=10)
    assert (len(found.examples), found.available) == (10, 50)
    again = chosen(split(tmp_path, rows[::-1]), max_examples=10)
    assert [e.reference for e in again.examples] == [e.reference for e in found.examples]
    other = chosen(split(tmp_path, rows), seed=1, max_examples=10)
    assert {e.reference for e in other.examples} != {e.reference for e in found.examples}
    assert len(chosen(split(tmp_path, rows), max_examples=None).examples) == 50


def test_rows_that_were_learnt_are_measured_only_if_asked_for(tmp_path: Path) -> None:
    config = split(tmp_path, [row("held")])
    assert [e.prompt and e.prompt.question for e in chosen(config).examples] == ["held"]
    learnt = chosen(config, on="train").examples
    assert [e.prompt and e.prompt.question for e in learnt] == ["t"]


def test_equal_rows_that_are_kept_are_measured_as_often(tmp_path: Path) -> None:
    config = split(tmp_path, [row("same")] * 3).model_copy(update={"deduplicate": False})
    assert len(chosen(config).examples) == 3


def test_fields_that_are_not_trained_on_come_along(tmp_path: Path) -> None:
    config = split(tmp_path, [row("q", language="fr", metadata={"region": "eu"})])
    (example,) = chosen(config).examples
    assert example.extra == {"language": "fr", "metadata": {"region": "eu"}}


def test_too_long_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    config = split(tmp_path, [row("short"), row("long " * 500)])
    found = chosen(config.model_copy(update={"max_length": 200}))
    assert (len(found.examples), found.left_out, found.available) == (1, 1, 2)


def test_an_answer_that_is_a_tool_call_is_scored_and_not_generated(tmp_path: Path) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    tool = {"type": "function", "function": {"name": "look"}}
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "wait", "tool_calls": [call]},
    ]
    config = split(tmp_path, [{"messages": messages, "tools": [tool]}])
    (example,) = chosen(config, template=QWEN).examples
    assert example.prompt is None
    assert any(example.sequences[0].trainable)


def test_of_a_preference_both_answers_are_kept(tmp_path: Path) -> None:
    pair = {"prompt": "q", "chosen": "good answer", "rejected": "bad answer"}
    train = write(tmp_path / "train.jsonl", [pair | {"prompt": "other"}])
    config = data(train, validation=(write(tmp_path / "held.jsonl", [pair]),))
    (example,) = chosen(config).examples
    chat = chat_tokenizer()
    assert example.rejected is not None
    assert "bad answer" in chat.decode(example.rejected.tokens)
    assert "good answer" in chat.decode(example.sequences[0].tokens)
    assert (len(example.sequences), example.reference) == (1, "good answer")


def test_a_prompt_ends_where_the_answer_begins(tmp_path: Path) -> None:
    (example,) = chosen(split(tmp_path, [row("What?", "That.")])).examples
    assert example.prompt is not None
    chat = chat_tokenizer()
    tokens = example.prompt.tokens(chat)
    sequence = example.sequences[0]
    assert tokens == sequence.tokens[: sequence.trainable.index(True)]


def test_only_the_last_question_is_asked_in_another_way() -> None:
    messages = tuple(
        Message(role=role, content=text)
        for role, text in (("user", "a"), ("assistant", "b"), ("user", "c"))
    )
    asked = Prompt(messages=messages).asking("C?")
    assert [message["content"] for message in asked.messages] == ["a", "b", "C?"]
    assert Prompt(text="once").asking("twice").question == "twice"
