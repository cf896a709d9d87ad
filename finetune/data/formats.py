"""Which format a row has, and from any format to an example."""

from __future__ import annotations

from typing import Any, Literal, get_args

from finetune.config import Format
from finetune.data import older_formats
from finetune.data.messages import check_ends_with_answer, check_messages
from finetune.data.rows import (
    Completion,
    Conversation,
    Example,
    Message,
    Preference,
    Problems,
    kind_of,
)
from finetune.data.tools import check_tools, tool_names

FORMATS: tuple[Format, ...] = get_args(Format)
Style = Literal["chat", "text"]
# What a row must have to be taken for a format; either set will do.
_SIGNS: dict[Format, tuple[frozenset[str], ...]] = {
    "messages": (frozenset({"messages"}),),
    "prompt_completion": (frozenset({"prompt", "completion"}),),
    "alpaca": (frozenset({"instruction", "output"}),),
    "sharegpt": (frozenset({"conversations"}),),
    "preference": (
        frozenset({"preferred_output", "non_preferred_output"}),
        frozenset({"chosen", "rejected"}),
    ),
}
_USED: dict[Format, frozenset[str]] = {
    "messages": frozenset({"messages", "tools", "parallel_tool_calls"}),
    "prompt_completion": frozenset({"prompt", "completion", "tools"}),
    "alpaca": frozenset({"instruction", "input", "output", "system", "history"}),
    "sharegpt": frozenset({"conversations", "system", "tools"}),
    "preference": frozenset(
        {"input", "preferred_output", "non_preferred_output", "prompt", "chosen", "rejected"}
        | {"tools"}
    ),
}


def fitting(row: Any) -> list[Format]:
    """The formats whose fields the row has; more than one is for a person to decide."""
    if not isinstance(row, dict):
        return []
    present = {key for key, value in row.items() if value is not None}
    return [name for name, signs in _SIGNS.items() if any(sign <= present for sign in signs)]


def ignored_fields(format: Format, row: dict[str, Any]) -> set[str]:
    """Fields of the row that this format has no use for."""
    return {key for key, value in row.items() if value is not None} - _USED[format]


def describe_formats() -> str:
    """The fields of each format, for messages."""
    return "; ".join(
        f"{name} ({' or '.join(', '.join(sorted(sign)) for sign in signs)})"
        for name, signs in _SIGNS.items()
    )


def convert(format: Format, row: Any, style: Style, problems: Problems) -> Example | None:
    """The example in `row`. None, and the reasons in `problems`, if it cannot be used."""
    if not isinstance(row, dict):
        problems.add("", f"must be an object, not {kind_of(row)}")
        return None
    row = {key: value for key, value in row.items() if value is not None}
    example: Example
    match format:
        case "messages":
            example = _conversation(row, row.get("messages"), "messages", problems)
        case "sharegpt":
            example = older_formats.sharegpt(row, problems)
        case "alpaca":
            example = older_formats.alpaca(row, problems)
        case "prompt_completion":
            example = _prompt_completion(row, style, problems)
        case "preference":
            example = _preference(row, problems)
    return None if problems.found else example


def _conversation(
    row: dict[str, Any], messages: Any, field: str, problems: Problems
) -> Conversation:
    tools = check_tools(row.get("tools", []), problems)
    found = _given_messages(messages, problems, field, tool_names(tools))
    check_ends_with_answer(found, problems, field)
    return Conversation(found, tools)


def _prompt_completion(
    row: dict[str, Any], style: Style, problems: Problems
) -> Conversation | Completion:
    prompt, completion = row.get("prompt"), row.get("completion")
    if isinstance(prompt, list) and isinstance(completion, list):
        return _conversation(row, [*prompt, *completion], "prompt+completion", problems)
    if "tools" in row:
        problems.add("tools", "needs a prompt and a completion that are lists of messages")
    for name, value in (("prompt", prompt), ("completion", completion)):
        if not isinstance(value, str):
            problems.add(name, older_formats.missing_or("must be text", value))
        elif not value.strip() and (name == "completion" or style == "chat"):
            problems.add(name, "is empty")
    if problems.found:
        return Completion("", "")
    if style == "text":
        return Completion(str(prompt), str(completion))
    return Conversation(
        [
            {"role": "user", "content": str(prompt)},
            {"role": "assistant", "content": str(completion)},
        ]
    )


def _preference(row: dict[str, Any], problems: Problems) -> Preference:
    if "preferred_output" in row or "non_preferred_output" in row or "input" in row:
        return _openai_preference(row, problems)
    tools = check_tools(row.get("tools", []), problems)
    names = tool_names(tools)
    prompt, chosen, rejected = row.get("prompt"), row.get("chosen"), row.get("rejected")
    if prompt is None and isinstance(chosen, list) and isinstance(rejected, list):
        shared = 0
        while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
            shared += 1
        prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
        if not prompt:
            problems.add("prompt", "is missing, and chosen and rejected do not begin alike")
    as_messages = [
        [{"role": role, "content": value}] if isinstance(value, str) else value
        for role, value in (("user", prompt), ("assistant", chosen), ("assistant", rejected))
    ]
    fields = ("prompt", "chosen", "rejected")
    return _checked_preference(as_messages, fields, tools, names, problems)


def _openai_preference(row: dict[str, Any], problems: Problems) -> Preference:
    given = row.get("input")
    if not isinstance(given, dict):
        problems.add("input", older_formats.missing_or("must be an object with messages", given))
        given = {}
    for key in sorted(set(given) - {"messages", "tools", "parallel_tool_calls"}):
        problems.add(f"input.{key}", "is not a field of input, and would be lost: remove it")
    tools = check_tools(given.get("tools") or [], problems, "input.tools")
    lists = [given.get("messages"), row.get("preferred_output"), row.get("non_preferred_output")]
    fields = ("input.messages", "preferred_output", "non_preferred_output")
    return _checked_preference(lists, fields, tools, tool_names(tools), problems)


def _checked_preference(
    lists: list[Any],
    fields: tuple[str, str, str],
    tools: list[dict[str, Any]],
    names: set[str] | None,
    problems: Problems,
) -> Preference:
    prompt, chosen, rejected = (
        _given_messages(value, problems, field, names)
        for value, field in zip(lists, fields, strict=True)
    )
    for answer, field in ((chosen, fields[1]), (rejected, fields[2])):
        if answer and (len(answer) > 1 or answer[0].get("role") != "assistant"):
            problems.add(field, "must be one message of the assistant")
    if chosen and chosen == rejected:
        problems.add(fields[2], f"is the same as {fields[1]}: nothing is preferred")
    return Preference(prompt, chosen, rejected, tools)


def _given_messages(
    value: Any, problems: Problems, field: str, names: set[str] | None
) -> list[Message]:
    if value is None:
        problems.add(field, "is missing")
        return []
    return check_messages(value, problems, field, names)
