"""Rows of a source, one at a time. Knows nothing of what a row should hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from finetune.config import FileSource, HubSource
from finetune.data.rows import RawRow
from finetune.errors import MissingExtra, SourceUnreadable

_PARQUET = b"PAR1"
_BOM = b"\xef\xbb\xbf"


def read(source: FileSource | HubSource, *, max_row_mib: int) -> Iterator[RawRow]:
    """Every row of `source`; a row that cannot be parsed carries its fault.

    Raises SourceUnreadable and MissingExtra, on the first row.
    """
    match source:
        case HubSource():
            yield from _read_hub(source)
        case FileSource():
            try:
                with Path(source.path).open("rb") as file:
                    if file.read(4) == _PARQUET:
                        yield from _read_parquet(source.path)
                        return
                    file.seek(0)
                    yield from read_jsonl(file, source.path, max_row_mib << 20)
            except SourceUnreadable:
                raise
            except OSError as exc:
                raise SourceUnreadable(f"cannot read {source.path}: {exc.strerror or exc}") from exc


def read_jsonl(file: IO[bytes], name: str, limit: int) -> Iterator[RawRow]:
    """Rows of JSON Lines in UTF-8; lines of white space alone are no rows.

    A line of more than `limit` bytes is a faulty row and is never held whole.
    Raises SourceUnreadable for what is not JSON Lines at all.
    """
    number = 0
    while line := file.readline(limit + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(_BOM)
            _refuse_other_formats(line, name)
        if len(line) > limit and not line.endswith(b"\n"):
            while (rest := file.readline(1 << 20)) and not rest.endswith(b"\n"):
                pass
            reason = f"is longer than {limit >> 20} MiB: shorten it or raise data.max_row_mib"
            yield RawRow(number, fault=reason)
        elif line.strip():
            yield _parse(number, line)


def _refuse_other_formats(line: bytes, name: str) -> None:
    start = line.lstrip()
    if start.startswith(b"[") and not line.rstrip().endswith(b"]"):
        raise SourceUnreadable(
            f"{name} is one JSON array, not JSON Lines: convert it with `jq -c '.[]' {name}`"
        )
    if start in (b"{\n", b"{\r\n"):
        raise SourceUnreadable(
            f"{name} holds JSON over several lines: put each example on one line, "
            f"with `jq -c . {name}`"
        )
    for magic, what in (
        (b"\x1f\x8b", "gzip"),
        (b"PK\x03\x04", "ZIP"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
    ):
        if line.startswith(magic):
            raise SourceUnreadable(f"{name} is compressed ({what}): unpack it first")
    if line[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise SourceUnreadable(f"{name} is UTF-16 text: save it as UTF-8")


def _parse(number: int, line: bytes) -> RawRow:
    try:
        text = line.decode().rstrip("\r\n")
    except UnicodeDecodeError as exc:
        return RawRow(number, fault=f"is not UTF-8 (byte {exc.start + 1} of the line)")
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        return RawRow(number, value)
    except json.JSONDecodeError as exc:
        return RawRow(number, fault=f"is not JSON: {exc.msg} at character {exc.pos + 1}")
    except RecursionError:
        return RawRow(number, fault="is nested too deeply")
    except ValueError as exc:
        return RawRow(number, fault=f"is not JSON: {exc}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _read_parquet(path: str) -> Iterator[RawRow]:
    try:
        from finetune.data import parquet
    except ModuleNotFoundError as exc:
        raise MissingExtra(
            f"{path} is Parquet, which needs pyarrow: pip install 'corral[finetune]'"
        ) from exc
    yield from parquet.read(path)


def _read_hub(source: HubSource) -> Iterator[RawRow]:
    try:
        from finetune.data import hub
    except ModuleNotFoundError as exc:
        raise MissingExtra(
            f"{source.path} is a Hub data set, which needs the package datasets: "
            "pip install 'corral[finetune]'"
        ) from exc
    yield from hub.read(source)
