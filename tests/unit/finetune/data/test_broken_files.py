"""A corpus of broken data files, each with exactly what is said of it, all in one pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune.config import DataConfig, FileSource, Format
from finetune.data.check import check

Q = {"role": "user", "content": "Q"}
A = {"role": "assistant", "content": "A"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
ROLES = "system, developer, user, assistant, tool"


def _m(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"messages": list(messages), **more}


def _gpt(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"conversations": [{"from": who, "value": text} for who, text in turns]}


def _pair(chosen: Any, rejected: Any, **given: Any) -> dict[str, Any]:
    return {
        "input": {"messages": [Q], **given},
        "preferred_output": chosen,
        "non_preferred_output": rejected,
    }


# What is wrong, the row, and the faults (field, reason) that are reported of it.
ROWS: list[tuple[str, Any, list[tuple[str, str]]]] = [
    ("no object", ["x"], [("", "must be an object, not a list")]),
    ("no messages", _m(), [("messages", "is empty")]),
    (
        "messages no list",
        {"messages": "hi"},
        [("messages", "must be a list of messages, not text")],
    ),
    ("message no object", _m("hi", A), [("messages[0]", "must be an object, not text")]),
    ("no role", _m({"content": "x"}, A), [("messages[0].role", "is missing")]),
    (
        "unknown role",
        _m({"role": "bot", "content": "x"}, A),
        [("messages[0].role", f"must be one of {ROLES}, not 'bot'")],
    ),
    (
        "role no text",
        _m({"role": 3, "content": "x"}, A),
        [("messages[0].role", "must be text, not a number")],
    ),
    ("no content", _m({"role": "user"}, A), [("messages[0].content", "is missing")]),
    (
        "content a number",
        _m({"role": "user", "content": 4}, A),
        [("messages[0].content", "must be text, not a number")],
    ),
    ("blank answer", _m(Q, A | {"content": " \n"}), [("messages[1].content", "is empty")]),
    (
        "an image",
        _m({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, A),
        [("messages[0].content[0].type", "only text can be learnt, not 'image_url'")],
    ),
    (
        "ends with the user",
        _m(A, Q),
        [("messages[1].role", "the last message must be from the assistant, not from 'user'")],
    ),
    (
        "unknown field of a message",
        _m(Q | {"mood": "sad"}, A),
        [("messages[0].mood", "is not a field of a message, and would be lost: remove it")],
    ),
    ("weight 2", _m(Q, A | {"weight": 2}), [("messages[1].weight", "must be 0 or 1, not 2")]),
    (
        "weight true",
        _m(Q, A | {"weight": True}),
        [("messages[1].weight", "must be 0 or 1, not True")],
    ),
    (
        "weight of a question",
        _m(Q | {"weight": 0}, A),
        [("messages[0].weight", "belongs to the assistant's messages, not to 'user'")],
    ),
    (
        "nothing weighs",
        _m(Q, A | {"weight": 0}),
        [("messages", "every answer has weight 0: nothing in this row is learnt")],
    ),
    (
        "old function call",
        _m(Q, A | {"function_call": {"name": "f", "arguments": "{}"}}),
        [
            (
                "messages[1].function_call",
                "is the old form: write tool_calls and role 'tool'",
            )
        ],
    ),
    (
        "arguments no JSON",
        _m(
            Q,
            {
                "role": "assistant",
                "tool_calls": [CALL | {"function": {"name": "f", "arguments": "{"}}],
            },
        ),
        [
            (
                "messages[1].tool_calls[0].function.arguments",
                "is text that is not JSON: Expecting property name enclosed in double quotes: "
                "line 1 column 2 (char 1)",
            )
        ],
    ),
    (
        "call without id",
        _m(Q, {"role": "assistant", "tool_calls": [{**CALL, "id": None}]}),
        [("messages[1].tool_calls[0].id", "is missing")],
    ),
    (
        "call of an undeclared function",
        _m(
            Q,
            {
                "role": "assistant",
                "tool_calls": [CALL | {"function": {"name": "g", "arguments": "{}"}}],
            },
            tools=[TOOL],
        ),
        [("messages[1].tool_calls[0].function.name", "'g' is not among the row's tools")],
    ),
    (
        "call not answered",
        _m(Q, {"role": "assistant", "tool_calls": [CALL]}, Q, A),
        [
            (
                "messages[1].tool_calls",
                "the call 'c1' is not answered by a message of role 'tool' right after it",
            )
        ],
    ),
    (
        "answer to no call",
        _m(Q, {"role": "tool", "tool_call_id": "c9", "content": "1"}, A),
        [("messages[1].tool_call_id", "answers no call before it: 'c9'")],
    ),
    (
        "answer without an id",
        _m(Q, {"role": "tool", "content": "1"}, A),
        [("messages[1].tool_call_id", "is missing: say which call this answers")],
    ),
    (
        "function declared twice",
        _m(Q, A, tools=[TOOL, TOOL]),
        [("tools[1].function.name", "is declared twice: 'f'")],
    ),
    (
        "function with a bad name",
        _m(Q, A, tools=[{"type": "function", "function": {"name": "a b"}}]),
        [
            (
                "tools[0].function.name",
                "must be 1 to 64 of letters, digits, '_' and '-', not 'a b'",
            )
        ],
    ),
    (
        "tools no list",
        _m(Q, A, tools={"f": 1}),
        [("tools", "must be a list of tools, not an object")],
    ),
    (
        "several faults at once",
        _m({"role": "bot", "content": 1}, Q),
        [
            ("messages[0].role", f"must be one of {ROLES}, not 'bot'"),
            ("messages[0].content", "must be text, not a number"),
            (
                "messages[1].role",
                "the last message must be from the assistant, not from 'user'",
            ),
        ],
    ),
    (
        "half a surrogate pair",
        _m(Q, A | {"content": "\ud800"}),
        [("", "a text holds half of a surrogate pair (\\ud800 to \\udfff)")],
    ),
    (
        "another format",
        {"instruction": "x", "output": "y"},
        [
            (
                "",
                "looks like alpaca, but this source is messages: put it into a file of its own, "
                "or set the source's `format`",
            )
        ],
    ),
    ("no known field", {"text": "x"}, [("messages", "is missing")]),
]
OTHERS: list[tuple[str, Format, Any, list[tuple[str, str]]]] = [
    (
        "alpaca output no text",
        "alpaca",
        {"instruction": "x", "output": 5},
        [("output", "must be text, not a number")],
    ),
    (
        "alpaca nothing asked",
        "alpaca",
        {"instruction": "", "output": " "},
        [("instruction", "is empty"), ("output", "is empty")],
    ),
    (
        "alpaca history",
        "alpaca",
        {"instruction": "x", "output": "y", "history": [["a"]]},
        [("history[0]", "must be a pair of texts: question and answer")],
    ),
    (
        "sharegpt unknown speaker",
        "sharegpt",
        _gpt(("alien", "x"), ("gpt", "y")),
        [
            (
                "conversations[0].from",
                "must be one of system, human, user, gpt, assistant, chatgpt, model, "
                "function_call, observation, tool, not 'alien'",
            )
        ],
    ),
    (
        "sharegpt ends with the human",
        "sharegpt",
        _gpt(("gpt", "y"), ("human", "x")),
        [("conversations[1].from", "the last message must be from the assistant, not from 'user'")],
    ),
    (
        "sharegpt call no JSON",
        "sharegpt",
        _gpt(("human", "x"), ("function_call", "f()"), ("gpt", "y")),
        [
            (
                "conversations[1].value",
                "is no call in JSON: Expecting value: line 1 column 1 (char 0)",
            )
        ],
    ),
    (
        "sharegpt observation of nothing",
        "sharegpt",
        _gpt(("human", "x"), ("observation", "1"), ("gpt", "y")),
        [("conversations[1].tool_call_id", "answers no call before it: '(none)'")],
    ),
    (
        "no completion",
        "prompt_completion",
        {"prompt": "x", "completion": None},
        [("completion", "is missing")],
    ),
    (
        "pair without the other answer",
        "preference",
        _pair([A], None),
        [("non_preferred_output", "is missing")],
    ),
    (
        "pair of equals",
        "preference",
        _pair([A], [A]),
        [("non_preferred_output", "is the same as preferred_output: nothing is preferred")],
    ),
    (
        "pair answered by the user",
        "preference",
        _pair([Q], [A]),
        [("preferred_output", "must be one message of the assistant")],
    ),
    (
        "pair with a lost field",
        "preference",
        _pair([A], [A | {"content": "B"}], model="x"),
        [("input.model", "is not a field of input, and would be lost: remove it")],
    ),
    (
        "pair with no prompt",
        "preference",
        {"chosen": [Q, A], "rejected": [A]},
        [
            ("prompt", "is missing, and chosen and rejected do not begin alike"),
            ("prompt", "is empty"),
            ("chosen", "must be one message of the assistant"),
        ],
    ),
]
# Lines that are no rows, as bytes.
LINES: list[tuple[str, bytes, str]] = [
    ("cut off", b'{"messages": [', "is not JSON: Expecting value at character 15"),
    ("two values", b"{} {}", "is not JSON: Extra data at character 4"),
    ("not UTF-8", b'{"messages": "\xff"}', "is not UTF-8 (byte 15 of the line)"),
    ("NaN", b'{"messages": NaN}', "is not JSON: NaN is no JSON number"),
    ("a key twice", b'{"a": 1, "a": 2}', "is not JSON: the key 'a' stands twice in one object"),
    ("bottomless", b"[" * 200_000, "is nested too deeply"),
    (
        "endless",
        b'"' + b"x" * (1 << 20),
        "is longer than 1 MiB: shorten it or raise data.max_row_mib",
    ),
]


def _faults(path: Path, format: Format) -> list[tuple[int, str, str]]:
    source = FileSource(path=str(path), format=format)
    config = DataConfig(train=(source,), min_examples=1, max_row_mib=1)
    checked = check(config)
    assert {fault.source for fault in checked.faults} <= {str(path)}
    return [(fault.row, fault.field, fault.reason) for fault in checked.faults]


@pytest.mark.parametrize(
    ("format", "row", "expected"),
    [
        *(pytest.param("messages", row, faults, id=name) for name, row, faults in ROWS),
        *(pytest.param(format, row, faults, id=name) for name, format, row, faults in OTHERS),
    ],
)
def test_a_broken_row(
    tmp_path: Path, format: Format, row: Any, expected: list[tuple[str, str]]
) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(GOOD[format]) + "\n\n" + json.dumps(row) + "\n")
    assert _faults(path, format) == [(3, field, reason) for field, reason in expected]


GOOD: dict[Format, Any] = {
    "messages": _m(Q, A),
    "alpaca": {"instruction": "Q", "output": "A"},
    "sharegpt": _gpt(("human", "Q"), ("gpt", "A")),
    "prompt_completion": {"prompt": "Q", "completion": "A"},
    "preference": _pair([A], [A | {"content": "B"}]),
}


@pytest.mark.parametrize(
    ("line", "reason"), [pytest.param(line, reason, id=name) for name, line, reason in LINES]
)
def test_a_broken_line(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "data.jsonl"
    good = json.dumps(_m(Q, A)).encode()
    path.write_bytes(good + b"\n" + line + b"\n" + good)
    assert _faults(path, "messages") == [(2, "", reason)]


def test_every_broken_row_of_a_file_is_reported_in_one_pass(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    good = json.dumps(_m(Q, A))
    lines = [line for _, row, _ in ROWS for line in (json.dumps(row), good)]
    path.write_text("\n".join(lines))
    expected = [
        (2 * index + 1, field, reason)
        for index, (_, _, faults) in enumerate(ROWS)
        for field, reason in faults
    ]
    assert _faults(path, "messages") == expected
