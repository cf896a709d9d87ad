"""Checks a list of messages and puts it into the one shape that templates see.

The rules are those of OpenAI's fine-tuning files and of chat requests, so that what was
trained on can be sent to the server word for word.
"""

from __future__ import annotations

from typing import Any

from finetune.data.rows import Message, Problems, kind_of
from finetune.data.tools import check_calls

ROLES = ("system", "developer", "user", "assistant", "tool")
_KEYS = {"role", "content", "name", "weight", "tool_calls", "tool_call_id", "reasoning_content"}
_ONLY_ASSISTANT = ("tool_calls", "weight", "reasoning_content")


def check_messages(
    value: Any, problems: Problems, field: str, tools: set[str] | None = None
) -> list[Message]:
    """The messages in `value`, normalised; what is wrong with them goes to `problems`.

    `tools` are the names of the declared functions, None if none are declared.
    """
    if not isinstance(value, list | tuple):
        problems.add(field, f"must be a list of messages, not {kind_of(value)}")
        return []
    if not value:
        problems.add(field, "is empty")
        return []
    messages = [
        _message(item, problems, f"{field}[{index}]", tools) for index, item in enumerate(value)
    ]
    _check_tool_answers(messages, problems, field)
    return messages


def check_ends_with_answer(messages: list[Message], problems: Problems, field: str) -> None:
    """A training conversation ends with the assistant and has something to learn in it."""
    if not messages:
        return
    last = messages[-1].get("role")
    if last in ROLES and last != "assistant":
        problems.add(
            f"{field}[{len(messages) - 1}].role",
            f"the last message must be from the assistant, not from {last!r}",
        )
    answers = [message for message in messages if message.get("role") == "assistant"]
    if answers and not any(message.get("weight", 1) for message in answers):
        problems.add(field, "every answer has weight 0: nothing in this row is learnt")


def _message(value: Any, problems: Problems, field: str, tools: set[str] | None) -> Message:
    if not isinstance(value, dict):
        problems.add(field, f"must be an object, not {kind_of(value)}")
        return Message()
    # Parquet fills the fields that a message lacks with null or an empty list.
    given = {key: item for key, item in value.items() if item is not None}
    if given.get("tool_calls") == []:
        del given["tool_calls"]
    message = Message()
    _check_role(given, problems, field, message)
    role = message.get("role")
    for key in given:
        if key in ("function_call", "functions"):
            problems.add(f"{field}.{key}", "is the old form: write tool_calls and role 'tool'")
        elif key not in _KEYS:
            problems.add(
                f"{field}.{key}", "is not a field of a message, and would be lost: remove it"
            )
        elif key in _ONLY_ASSISTANT and role is not None and role != "assistant":
            problems.add(f"{field}.{key}", f"belongs to the assistant's messages, not to {role!r}")
    for key in ("name", "reasoning_content", "tool_call_id"):
        if key in given and not isinstance(given[key], str):
            problems.add(f"{field}.{key}", f"must be text, not {kind_of(given[key])}")
        elif key in given:
            message[key] = given[key]  # type: ignore[literal-required]
    _check_weight(given, problems, field, message)
    if "tool_calls" in given:
        message["tool_calls"] = check_calls(
            given["tool_calls"], problems, f"{field}.tool_calls", tools
        )
    _check_content(given, problems, field, message)
    return message


def _check_role(given: dict[str, Any], problems: Problems, field: str, message: Message) -> None:
    role = given.get("role")
    if role is None:
        problems.add(f"{field}.role", "is missing")
    elif not isinstance(role, str):
        problems.add(f"{field}.role", f"must be text, not {kind_of(role)}")
    elif role not in ROLES:
        problems.add(f"{field}.role", f"must be one of {', '.join(ROLES)}, not {role!r}")
    else:
        message["role"] = role
        if role == "tool" and "tool_call_id" not in given:
            problems.add(f"{field}.tool_call_id", "is missing: say which call this answers")


def _check_weight(given: dict[str, Any], problems: Problems, field: str, message: Message) -> None:
    if "weight" not in given:
        return
    weight = given["weight"]
    if isinstance(weight, bool) or weight not in (0, 1):
        problems.add(f"{field}.weight", f"must be 0 or 1, not {weight!r}")
    elif weight == 0:
        message["weight"] = 0  # 1 is the default: rows that say so have the same content


def _check_content(given: dict[str, Any], problems: Problems, field: str, message: Message) -> None:
    role, content = message.get("role"), given.get("content")
    if isinstance(content, list | tuple):
        content = _joined(content, problems, f"{field}.content")
    if content is None:
        if not given.get("tool_calls"):
            problems.add(f"{field}.content", "is missing")
    elif not isinstance(content, str):
        problems.add(f"{field}.content", f"must be text, not {kind_of(content)}")
    elif not content.strip() and role in ("user", "assistant") and not given.get("tool_calls"):
        problems.add(f"{field}.content", "is empty")
    # Templates concatenate it, so that an answer of calls alone needs it too.
    message["content"] = content if isinstance(content, str) else ""


def _joined(parts: Any, problems: Problems, field: str) -> str:
    """Text parts joined by newlines, as vLLM joins them for templates that take text."""
    texts = []
    for index, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            what = repr(kind) if kind else kind_of(part)
            problems.add(f"{field}[{index}].type", f"only text can be learnt, not {what}")
        elif not isinstance(part.get("text"), str):
            problems.add(f"{field}[{index}].text", "must be text")
        else:
            texts.append(part["text"])
    # With a faulty part the row is refused already; it is not empty as well.
    return "\n".join(texts) if len(texts) == len(parts) else "?"


def _check_tool_answers(messages: list[Message], problems: Problems, field: str) -> None:
    """Calls are answered at once and by their id, as the chat API demands."""
    waiting: dict[str, int] = {}
    for index, message in enumerate(messages):
        if message.get("role") == "tool":
            call = message.get("tool_call_id")
            if call is not None and waiting.pop(call, None) is None:
                problems.add(
                    f"{field}[{index}].tool_call_id", f"answers no call before it: {call!r}"
                )
            continue
        _report_unanswered(waiting, problems, field)
        waiting = {call["id"]: index for call in message.get("tool_calls", []) if call.get("id")}


def _report_unanswered(waiting: dict[str, int], problems: Problems, field: str) -> None:
    for call, index in waiting.items():
        problems.add(
            f"{field}[{index}].tool_calls",
            f"the call {call!r} is not answered by a message of role 'tool' right after it",
        )
