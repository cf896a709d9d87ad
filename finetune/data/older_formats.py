"""Alpaca and ShareGPT rows, rewritten as messages and checked as those.

Alpaca: https://github.com/tatsu-lab/stanford_alpaca; `system` and `history` as LLaMA-Factory
has them. ShareGPT: `from` and `value`, with LLaMA-Factory's function_call and observation.
"""

from __future__ import annotations

import json
from typing import Any

from finetune.data.messages import check_ends_with_answer, check_messages
from finetune.data.rows import Conversation, Message, Problems, kind_of
from finetune.data.tools import check_tools, tool_names

_SPEAKERS = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
}
_TURN = {"from", "value", "weight"}


def missing_or(reason: str, value: Any) -> str:
    """`is missing`, or the reason with what stands there instead."""
    return "is missing" if value is None else f"{reason}, not {kind_of(value)}"


def alpaca(row: dict[str, Any], problems: Problems) -> Conversation:
    """One question and answer, with earlier ones in `history`."""
    for name in ("instruction", "output"):
        if not isinstance(row.get(name), str):
            problems.add(name, missing_or("must be text", row.get(name)))
        elif not row[name].strip():
            problems.add(name, "is empty")
    for name in ("input", "system"):
        if not isinstance(row.get(name, ""), str):
            problems.add(name, f"must be text, not {kind_of(row[name])}")
    messages: list[Message] = []
    history = row.get("history", [])
    if not isinstance(history, list):
        problems.add("history", f"must be a list of pairs, not {kind_of(history)}")
        history = []
    for index, pair in enumerate(history):
        if not (isinstance(pair, list) and [kind_of(text) for text in pair] == ["text", "text"]):
            problems.add(f"history[{index}]", "must be a pair of texts: question and answer")
            continue
        messages += [
            {"role": "user", "content": pair[0]},
            {"role": "assistant", "content": pair[1]},
        ]
    if problems.found:
        return Conversation([])
    if row.get("system"):
        messages.insert(0, {"role": "system", "content": row["system"]})
    question = "\n\n".join(text for text in (row["instruction"], row.get("input")) if text)
    messages += [
        {"role": "user", "content": question},
        {"role": "assistant", "content": row["output"]},
    ]
    return Conversation(messages)


def sharegpt(row: dict[str, Any], problems: Problems) -> Conversation:
    """Turns of `from` and `value`; a call and its observation become a tool call and its answer."""
    tools = check_tools(row.get("tools", []), problems)
    turns = row.get("conversations")
    if not isinstance(turns, list):
        problems.add("conversations", missing_or("must be a list of turns", turns))
        return Conversation([])
    if not turns:
        problems.add("conversations", "is empty")
    messages: list[dict[str, Any]] = []
    if "system" in row:
        if isinstance(row["system"], str):
            messages.append({"role": "system", "content": row["system"]})
        else:
            problems.add("system", f"must be text, not {kind_of(row['system'])}")
    first = len(messages)
    for index, turn in enumerate(turns):
        messages.append(_turn(turn, messages, problems, f"conversations[{index}]"))
    if problems.found:
        return Conversation([])
    renamed = _Renamed(problems, first)
    found = check_messages(messages, renamed, "", tool_names(tools)) if messages else []
    check_ends_with_answer(found, renamed, "")
    return Conversation(found, tools)


class _Renamed(Problems):
    """Says `conversations[i].value` of what is wrong with the message made from it."""

    def __init__(self, problems: Problems, first: int) -> None:
        super().__init__()
        self._problems = problems
        self._first = first

    def add(self, field: str, reason: str) -> None:
        index, _, rest = field.removeprefix("[").partition("]")
        if not index.isdigit() or int(index) < self._first:
            self._problems.add("system" if index.isdigit() else "conversations", reason)
            return
        rest = rest.replace(".role", ".from").replace(".content", ".value")
        self._problems.add(f"conversations[{int(index) - self._first}]{rest}", reason)


def _turn(
    turn: Any, before: list[dict[str, Any]], problems: Problems, field: str
) -> dict[str, Any]:
    if not isinstance(turn, dict):
        problems.add(field, f"must be an object, not {kind_of(turn)}")
        return {}
    turn = {key: value for key, value in turn.items() if value is not None}
    for key in sorted(set(turn) - _TURN):
        problems.add(f"{field}.{key}", "is not a field of a turn, and would be lost: remove it")
    speaker, value = turn.get("from"), turn.get("value")
    if not isinstance(speaker, str) or speaker not in _SPEAKERS:
        names = ", ".join(_SPEAKERS)
        wrong = "is missing" if speaker is None else f"must be one of {names}, not {speaker!r}"
        problems.add(f"{field}.from", wrong)
        return {}
    if not isinstance(value, str):
        problems.add(f"{field}.value", missing_or("must be text", value))
        return {}
    message: dict[str, Any] = {"role": _SPEAKERS[speaker], "content": value}
    if "weight" in turn:
        message["weight"] = turn["weight"]
    if speaker == "function_call":
        message |= {"content": None, "tool_calls": _calls(value, len(before), problems, field)}
    elif message["role"] == "tool":
        answered = sum(1 for item in before if item.get("role") == "tool")
        asked = [call["id"] for item in before for call in item.get("tool_calls", [])]
        message["tool_call_id"] = asked[answered] if answered < len(asked) else "(none)"
    return message


def _calls(value: str, at: int, problems: Problems, field: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(value)
    except ValueError as exc:
        problems.add(f"{field}.value", f"is no call in JSON: {exc}")
        return []
    calls = found if isinstance(found, list) else [found]
    return [
        {"id": f"call_{at}_{index}", "type": "function", "function": call}
        for index, call in enumerate(calls)
    ]
