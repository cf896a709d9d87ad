"""Strict, frozen configuration: one YAML file is one complete run.

Every package declares its own models next to the code that reads them and
loads them here. This module knows nothing of what the fields mean.

    class BenchConfig(StrictModel):
        streams: int = 1

    config = load(BenchConfig, "configs/bench/dataplane.yaml", ["streams=16"])
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

__all__ = ["ConfigError", "StrictModel", "load", "parse"]


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the field and the mend."""


class StrictModel(BaseModel):
    """Base of every configuration: frozen, unknown keys refused, docstrings as field help."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=()
    )


M = TypeVar("M", bound=StrictModel)


def load(model: type[M], path: str | Path, overrides: Iterable[str] = ()) -> M:
    """Read `path` (YAML), apply `a.b=value` overrides and validate against `model`.

    Override values are YAML too (`--set models.0.replicas.max=2`); a number in
    the path indexes a list. Raises ConfigError, listing every fault at once.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"cannot read the configuration {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path} is not UTF-8 text: {exc}") from exc
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ConfigError(f"{path} is not valid YAML: {exc}") from exc
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a mapping at the top, not a {type(data).__name__}")
    return parse(model, data, overrides, where=str(path))


def parse(
    model: type[M], data: Mapping[str, Any], overrides: Iterable[str] = (), *, where: str = "config"
) -> M:
    """Validate `data` with `a.b=value` overrides applied. Raises ConfigError."""
    merged: Any = _copy(data)
    for item in overrides:
        _override(merged, item)
    try:
        return model.model_validate(merged)
    except ValidationError as exc:
        lines = [_describe(model, error) for error in exc.errors()]
        raise ConfigError(f"{where}:\n  " + "\n  ".join(lines)) from exc


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(item) for item in value]
    return value


def _override(data: Any, item: str) -> None:
    path, sep, raw = item.partition("=")
    keys = path.strip().split(".")
    if not sep or not all(keys):
        raise ConfigError(f"--set {item!r} is not of the form a.b=value")
    try:
        value = yaml.safe_load(raw)
    except yaml.YAMLError as exc:
        raise ConfigError(f"--set {path}: the value {raw!r} is not valid YAML") from exc
    node = data
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(node, list):
            if not key.isdigit() or int(key) >= len(node):
                raise ConfigError(f"--set {path}: {key!r} is no index of a list of {len(node)}")
            index = int(key)
            if last:
                node[index] = value
            node = node[index]
        elif isinstance(node, dict):
            if last:
                node[key] = value
            elif node.get(key) is None:
                node[key] = {}
            node = node[key]
        else:
            raise ConfigError(f"--set {path}: {'.'.join(keys[:depth])} holds a plain value")


def _describe(model: type[BaseModel], error: Any) -> str:
    loc = list(error["loc"])
    name = ".".join(str(part) for part in loc) or "(top level)"
    if error["type"] != "extra_forbidden":
        return f"{name}: {error['msg']}"
    near = difflib.get_close_matches(str(loc[-1]), _fields_at(model, loc[:-1]), n=1, cutoff=0.5)
    return f"{name}: unknown key" + (f"; did you mean {near[0]!r}?" if near else "")


def _fields_at(model: type[BaseModel], loc: list[Any]) -> list[str]:
    """Field names of the model that `loc` leads to; union tags in `loc` pick the member."""
    candidates: list[type[BaseModel]] = [model]
    for part in loc:
        if isinstance(part, int):
            continue
        deeper = [
            found
            for candidate in candidates
            if part in candidate.model_fields
            for found in _models_in(candidate.model_fields[part].annotation)
        ]
        if deeper:
            candidates = deeper
            continue
        tagged = [c for c in candidates if _tag(c) == part]
        candidates = tagged or candidates
    return [name for candidate in candidates for name in candidate.model_fields]


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    return None if field is None else field.default


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    found: list[type[BaseModel]] = []
    for inner in getattr(annotation, "__args__", ()):
        found += _models_in(inner)
    return found
