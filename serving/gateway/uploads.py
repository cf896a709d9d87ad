"""Reads a multipart upload: one file and a few fields, within limits, without holding it in memory.

Whatever the client sends, what is held is bounded: the parser limits headers, `MAX_FIELD_BYTES`
each field, and the file goes to a temporary file on disk once it is larger than a mebibyte.
"""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import BinaryIO

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from serving.gateway.errors import ApiError

CHUNK_BYTES = 1 << 20
MAX_FIELD_BYTES = 4096
MAX_FIELDS = 16
MAX_NAME = 255
OVERHEAD_BYTES = 64 << 10
"""What boundaries, headers and fields may take beside the file."""
_CLOSE = [(b"connection", b"close")]


@dataclass(frozen=True)
class Upload:
    """What was sent."""

    fields: dict[str, str]
    file: BinaryIO
    filename: str
    size: int

    def chunks(self) -> Iterator[bytes]:
        """The content, from its beginning."""
        self.file.seek(0)
        while chunk := self.file.read(CHUNK_BYTES):
            yield chunk


@asynccontextmanager
async def uploaded(
    request: Request, max_bytes: int, stall_s: float
) -> AsyncGenerator[Upload, None]:
    """The upload in the body of a request, gone afterwards.

    Raises ApiError: 413 beyond `max_bytes`, 408 when nothing comes for `stall_s`, 400 for what
    is no upload of one file.
    """
    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data"):
        raise ApiError(400, "send the file as multipart/form-data, in the field `file`")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared[:20]) > max_bytes + OVERHEAD_BYTES:
        raise _too_large(max_bytes)
    parser = MultiPartParser(
        request.headers,
        _bounded(request, max_bytes + OVERHEAD_BYTES, max_bytes, stall_s),
        max_files=1,
        max_fields=MAX_FIELDS,
        max_part_size=MAX_FIELD_BYTES,
    )
    try:
        form = await parser.parse()
    except MultiPartException as exc:
        raise ApiError(400, f"the upload cannot be read: {exc.message}", headers=_CLOSE) from exc
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise ApiError(400, "`file` is missing, or is no file", param="file")
        size = file.size or 0
        if size > max_bytes:
            raise _too_large(max_bytes)
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
        yield Upload(fields, file.file, plain_name(file.filename or ""), size)
    finally:
        await form.close()


def plain_name(name: str) -> str:
    """A file's name as it is shown: its last component, without what is not text."""
    last = re.split(r"[\\/]", name)[-1]
    text = "".join(c for c in last if unicodedata.category(c)[0] != "C").strip()
    return text[:MAX_NAME] if text.strip(".") else "file"


async def _bounded(
    request: Request, max_total: int, max_bytes: int, stall_s: float
) -> AsyncGenerator[bytes, None]:
    total = 0
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(stall_s):
                chunk = await anext(stream, None)
        except TimeoutError as exc:
            raise ApiError(
                408, f"nothing of the upload came for {stall_s:g} s", headers=_CLOSE
            ) from exc
        if chunk is None:
            return
        total += len(chunk)
        if total > max_total:
            raise _too_large(max_bytes)
        yield chunk


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(
        413, f"the file is larger than {max_bytes / 2**20:g} MiB", param="file", headers=_CLOSE
    )
