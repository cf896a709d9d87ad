"""Checks declared functions and the calls of them."""

from __future__ import annotations

import json
import re
from typing import Any

from finetune.data.rows import Problems, kind_of

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_tools(value: Any, problems: Problems, field: str = "tools") -> list[dict[str, Any]]:
    """The declared tools; a list in JSON text, as tables often hold it, is parsed."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else []
        except ValueError as exc:
            problems.add(field, f"is text that is not JSON: {exc}")
            return []
    if not isinstance(value, list | tuple):
        problems.add(field, f"must be a list of tools, not {kind_of(value)}")
        return []
    seen: set[str] = set()
    for index, tool in enumerate(value):
        name = _check_tool(tool, problems, f"{field}[{index}]")
        if name in seen:
            problems.add(f"{field}[{index}].function.name", f"is declared twice: {name!r}")
        seen.add(name)
    return [tool for tool in value if isinstance(tool, dict)]


def tool_names(tools: list[dict[str, Any]]) -> set[str] | None:
    """Names of the declared functions; None if no tools are declared."""
    functions = [tool.get("function") for tool in tools]
    return {str(item.get("name")) for item in functions if isinstance(item, dict)} or None


def check_calls(
    value: Any, problems: Problems, field: str, tools: set[str] | None
) -> list[dict[str, Any]]:
    """Calls with their arguments parsed, as vLLM hands them to templates."""
    if not isinstance(value, list | tuple):
        problems.add(field, f"must be a list of calls, not {kind_of(value)}")
        return []
    calls = [_call(item, problems, f"{field}[{index}]", tools) for index, item in enumerate(value)]
    ids = [call["id"] for call in calls if call.get("id")]
    for name in sorted({name for name in ids if ids.count(name) > 1}):
        problems.add(field, f"two calls have the id {name!r}")
    return calls


def _check_tool(tool: Any, problems: Problems, field: str) -> str:
    if not isinstance(tool, dict):
        problems.add(field, f"must be an object, not {kind_of(tool)}")
        return ""
    if tool.get("type") != "function":
        problems.add(f"{field}.type", f"must be 'function', not {tool.get('type')!r}")
    function = tool.get("function")
    if not isinstance(function, dict):
        problems.add(f"{field}.function", f"must be an object, not {kind_of(function)}")
        return ""
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        problems.add(
            f"{field}.function.parameters",
            f"must be a JSON schema (an object), not {kind_of(parameters)}",
        )
    return _name(function, problems, f"{field}.function")


def _call(value: Any, problems: Problems, field: str, tools: set[str] | None) -> dict[str, Any]:
    if not isinstance(value, dict):
        problems.add(field, f"must be an object, not {kind_of(value)}")
        return {}
    call_id = value.get("id")
    if not isinstance(call_id, str) or not call_id:
        problems.add(f"{field}.id", "is missing" if call_id is None else "must be text, not empty")
        call_id = ""
    if (value.get("type") or "function") != "function":
        problems.add(f"{field}.type", f"must be 'function', not {value['type']!r}")
    function = value.get("function")
    if not isinstance(function, dict):
        problems.add(f"{field}.function", f"must be an object, not {kind_of(function)}")
        return {"id": call_id}
    name = _name(function, problems, f"{field}.function")
    if name and tools is not None and name not in tools:
        problems.add(f"{field}.function.name", f"{name!r} is not among the row's tools")
    arguments = _arguments(function.get("arguments"), problems, f"{field}.function.arguments")
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _name(function: dict[str, Any], problems: Problems, field: str) -> str:
    name = function.get("name")
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    problems.add(
        f"{field}.name",
        "is missing"
        if name is None
        else f"must be 1 to 64 of letters, digits, '_' and '-', not {name!r}",
    )
    return ""


def _arguments(value: Any, problems: Problems, field: str) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as exc:
            problems.add(field, f"is text that is not JSON: {exc}")
            return {}
    if not isinstance(value, dict):
        problems.add(field, f"must be an object in JSON text, not {kind_of(value)}")
        return {}
    return value
