"""Reads files that somebody else wrote: regular files of bounded size, strict JSON."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

from serving.errors import AdapterRefused


def show(value: object) -> str:
    """`value` for an error message, on one line and short."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."


def open_regular(path: Path, mend: str) -> BufferedReader:
    """Open a regular file to read; never waits on a pipe. Raises AdapterRefused."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise AdapterRefused(f"{path.name} is missing; {mend}") from None
    except OSError as exc:
        raise AdapterRefused(f"{path.name} cannot be read: {exc.strerror}") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise AdapterRefused(f"{path.name} is not a regular file; {mend}")
    return os.fdopen(handle, "rb")


def read_json(path: Path, max_bytes: int, mend: str) -> dict[str, Any]:
    """Parse a JSON object from a file of at most `max_bytes`. Raises AdapterRefused."""
    with open_regular(path, mend) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise AdapterRefused(f"{path.name} is larger than {max_bytes} bytes; {mend}")
    return parse_json(data, path.name)


def parse_json(data: bytes, where: str) -> dict[str, Any]:
    """A JSON object: UTF-8, no NaN or Infinity, no key twice, not too deep to parse.

    Raises AdapterRefused; `where` begins its message.
    """
    try:
        value = json.loads(
            data.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_distinct
        )
    except RecursionError:
        raise AdapterRefused(f"{where} is nested too deeply") from None
    except ValueError as exc:
        raise AdapterRefused(f"{where} is not valid JSON: {str(exc)[:200]}") from None
    if not isinstance(value, dict):
        raise AdapterRefused(f"{where} must hold a JSON object, not {show(value)}")
    return value


def subdirectories(path: Path) -> list[str]:
    """Names of the directories in `path` (links followed) that are not hidden. Raises OSError."""
    with os.scandir(path) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".")]
    return [name for name in names if os.path.isdir(path / name)]


def is_inside(path: str | Path, root: str | Path) -> bool:
    """Whether `path` lies in `root` once every symbolic link is followed."""
    real, real_root = os.path.realpath(path), os.path.realpath(root)
    return real == real_root or real.startswith(real_root.rstrip(os.sep) + os.sep)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _distinct(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {show(key)} stands twice")
        found[key] = value
    return found
