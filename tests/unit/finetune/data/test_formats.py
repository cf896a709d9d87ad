"""Every format becomes the same messages."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.config import Format
from finetune.data.digest import content_digest
from finetune.data.formats import FORMATS, convert, describe_formats, fitting, ignored_fields
from finetune.data.rows import Completion, Conversation, Example, Preference, Problems

Q = {"role": "user", "content": "Q"}
A = {"role": "assistant", "content": "A"}
B = {"role": "assistant", "content": "B"}
TOOL = {"type": "function", "function": {"name": "f"}}
QA = Conversation([Q, A])  # type: ignore[list-item]


def _convert(row: dict[str, Any], style: Any = "chat") -> Example | None:
    (format,) = fitting(row)
    problems = Problems()
    found = convert(format, row, style, problems)
    assert problems.found == []
    return found


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [Q, A]},
        {"messages": [Q | {"name": None, "weight": None}, A | {"weight": 1}], "tools": None},
        {"messages": [Q | {"tool_calls": []}, A | {"tool_calls": []}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}]}, A]},
        {"prompt": "Q", "completion": "A"},
        {"prompt": [Q], "completion": [A]},
        {"instruction": "Q", "input": "", "output": "A"},
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
    ],
)
def test_the_same_conversation_in_every_format(row: dict[str, Any]) -> None:
    assert _convert(row) == QA


def test_alpaca_has_a_system_text_earlier_turns_and_an_input() -> None:
    row = {"instruction": "I", "input": "J", "output": "A", "system": "S", "history": [["q", "a"]]}
    found = _convert(row)
    assert isinstance(found, Conversation)
    assert [(m["role"], m["content"]) for m in found.messages] == [
        ("system", "S"), ("user", "q"), ("assistant", "a"), ("user", "I\n\nJ"), ("assistant", "A"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "row",
    [
        {"input": {"messages": [Q]}, "preferred_output": [A], "non_preferred_output": [B]},
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        {"prompt": [Q], "chosen": [A], "rejected": [B]},
        {"chosen": [Q, A], "rejected": [Q, B]},
    ],
)
def test_the_same_pair_in_every_format(row: dict[str, Any]) -> None:
    assert _convert(row) == Preference([Q], [A], [B])  # type: ignore[list-item]


def test_calls_have_their_arguments_parsed() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    messages = [Q, {"role": "assistant", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c", "content": "1"}, A]  # fmt: skip
    found = _convert({"messages": messages, "tools": json.dumps([TOOL])})
    assert isinstance(found, Conversation)
    assert found.tools == [TOOL]
    assert found.messages[1]["tool_calls"][0]["function"]["arguments"] == {"x": 1}
    assert found.messages[1]["content"] == ""


def test_sharegpt_calls_become_tool_calls_and_answers() -> None:
    turns = [
        {"from": "human", "value": "Q"},
        {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
        {"from": "observation", "value": "1"},
        {"from": "gpt", "value": "A"},
    ]
    found = _convert({"conversations": turns, "system": "S", "tools": [TOOL]})
    assert isinstance(found, Conversation)
    system, _, call, answer, last = found.messages
    assert system == {"role": "system", "content": "S"}
    assert call["tool_calls"][0]["function"] == {"name": "f", "arguments": {"x": 1}}
    assert answer["tool_call_id"] == call["tool_calls"][0]["id"]
    assert last == A


def test_plain_completions_stay_text() -> None:
    row = {"prompt": "The capital is", "completion": " Paris"}
    assert _convert(row, "text") == Completion("The capital is", " Paris")
    assert _convert({"prompt": "", "completion": "x"}, "text") == Completion("", "x")


def test_what_is_not_trained_on_is_named() -> None:
    row = {"instruction": "Q", "output": "A", "id": 3, "source": None, "score": 1}
    assert ignored_fields("alpaca", row) == {"id", "score"}


def test_rows_that_fit_several_formats_or_none() -> None:
    both = {"messages": [Q, A], "prompt": "Q", "chosen": [A], "rejected": [B]}
    assert fitting(both) == ["messages", "preference"]
    assert fitting({"text": "x"}) == []
    assert fitting({"messages": None}) == []
    assert fitting("x") == []
    assert all(format in describe_formats() for format in FORMATS)


_KEYS = st.sampled_from(
    [
        "messages",
        "role",
        "content",
        "weight",
        "tool_calls",
        "tool_call_id",
        "id",
        "type",
        "function",
        "name",
        "arguments",
        "tools",
        "parameters",
        "prompt",
        "completion",
        "chosen",
        "rejected",
        "input",
        "preferred_output",
        "non_preferred_output",
        "conversations",
        "from",
        "value",
        "system",
        "instruction",
        "output",
        "history",
        "text",
    ]
)
_LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=3),
    st.sampled_from(["user", "assistant", "tool", "human", "gpt", "function_call", "f", "{}"]),
)  # fmt: skip
_JSON = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=5),
    max_leaves=20,
)


@given(
    _JSON | st.dictionaries(_KEYS, _JSON),
    st.sampled_from(FORMATS),
    st.sampled_from(["chat", "text"]),
)
def test_any_row_is_an_example_or_has_its_faults(row: Any, format: Format, style: Any) -> None:
    problems = Problems()
    found = convert(format, row, style, problems)
    assert (found is None) == bool(problems.found)
    assert all(reason for _, reason in problems.found)
    if found is not None:
        assert len(content_digest(found)) == 16
