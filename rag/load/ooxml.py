"""Checks on Office files before a library opens them: they are ZIP archives of XML."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

from rag.errors import Unparsable

__all__ = ["checked", "member", "translated"]

MAX_UNPACKED = 512 << 20
MAX_PART = 256 << 20
MAX_ENTRIES = 10_000
_DECLARATION = re.compile(rb"<!(?:DOCTYPE|ENTITY)", re.IGNORECASE)
_HEAD = 4096


def checked(data: bytes) -> io.BytesIO:
    """The archive, once its index promises a sane size and no part declares entities.

    Raises Unparsable. An archive that lies about its sizes fails when it is read.
    """
    with translated("ZIP archive"), zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if len(entries) > MAX_ENTRIES:
            raise Unparsable(f"its archive has {len(entries)} entries, more than {MAX_ENTRIES}")
        if (total := sum(entry.file_size for entry in entries)) > MAX_UNPACKED:
            raise Unparsable(
                f"it unpacks to {total >> 20} MiB, more than {MAX_UNPACKED >> 20}: a ZIP bomb?"
            )
        if any(entry.flag_bits & 1 for entry in entries):
            raise Unparsable("it is encrypted: save it without a password")
        for entry in entries:
            if entry.filename.endswith((".xml", ".rels")):
                _refuse_declarations(archive, entry)
    return io.BytesIO(data)


def member(data: bytes, name: str) -> bytes:
    """One part, at most MAX_PART bytes of it. Raises Unparsable."""
    with (
        translated("ZIP archive"),
        zipfile.ZipFile(io.BytesIO(data)) as archive,
        archive.open(name) as file,
    ):
        found = file.read(MAX_PART + 1)
    if len(found) > MAX_PART:
        raise Unparsable(f"{name} in it unpacks to more than {MAX_PART >> 20} MiB")
    return found


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Whatever a library raises on a damaged file becomes Unparsable."""
    try:
        yield
    except (Unparsable, MemoryError):
        raise
    except Exception as exc:  # these libraries promise nothing about damaged input
        raise Unparsable(f"it is no readable {what}: {type(exc).__name__}: {exc}") from exc


def _refuse_declarations(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    with archive.open(entry) as file:
        head = file.read(_HEAD)
    if _DECLARATION.search(head.replace(b"\0", b"")):
        raise Unparsable(f"{entry.filename} in it declares entities, which Office files never do")
