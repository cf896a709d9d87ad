"""The adapter of a finished run, with its lineage: `adapter/`, written whole, never changed."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LINEAGE = "lineage.json"


def export_adapter(source: Path, target: Path, lineage: Mapping[str, Any]) -> Path:
    """Copy the PEFT directory `source` to `target` with `lineage.json` beside it; `target`.

    An adapter that is there already stays as it is.
    """
    if target.exists():
        return target
    with whole_folder(target) as part:
        for file in sorted(source.iterdir()):
            shutil.copyfile(file, part / file.name)
        text = json.dumps({**lineage, "exported_at": time.time()}, indent=2, ensure_ascii=False)
        (part / LINEAGE).write_text(f"{text}\n", encoding="utf-8")
    return target


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to write into, which takes the place of `target` when it is done and on disk."""
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    for path in [*part.rglob("*"), part]:
        _sync(path)
    if target.exists():
        remove_folder(target)
    part.rename(target)
    _sync(target.parent)


def remove_folder(folder: Path) -> None:
    """Under another name first, so that nobody sees half of it."""
    going = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(going, ignore_errors=True)
    folder.rename(going)
    shutil.rmtree(going)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
