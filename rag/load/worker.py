"""A parsing process: one file after another comes in on standard input, documents go out.

    python -m rag.load.worker LIMITS

It holds no secrets (its environment is cleared by `ParserPool`), may write no file, has no
network where the kernel allows to drop it, and a bound on its memory; the pool kills it when
a file takes too long. Messages are MessagePack behind a length of 8 bytes, big endian.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys
import threading
import time
from typing import IO, Literal

import msgspec

from rag.errors import Unparsable
from rag.load.build import refuse_beyond
from rag.load.parse import parse
from rag.protocols import RawFile
from rag.types import Document

__all__ = ["HEADER", "Limits", "Reply"]

HEADER = struct.Struct(">Q")
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000


class Limits(msgspec.Struct, frozen=True):
    """What the pool tells a worker, as JSON."""

    memory_bytes: int
    text_chars: int


class Reply(msgspec.Struct, frozen=True):
    """Documents, or why there are none."""

    documents: list[Document] = []
    error: str = ""
    code: Literal["unsupported_file", "invalid_file"] = "invalid_file"
    last: bool = False
    """The worker ends itself after this one: its memory ran out."""


def main(limits: Limits) -> None:
    """Answer until standard input closes."""
    source = os.fdopen(os.dup(0), "rb", buffering=1 << 16)
    target = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    refuse_beyond(limits.text_chars)
    confine(limits.memory_bytes)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    decoder = msgspec.msgpack.Decoder(RawFile)
    encoder = msgspec.msgpack.Encoder()
    while (message := read(source)) is not None:
        reply = answer(decoder.decode(message))
        try:
            encoded = encoder.encode(reply)
        except MemoryError:
            reply = _out_of_memory(limits.memory_bytes)
            encoded = encoder.encode(reply)
        target.write(HEADER.pack(len(encoded)))
        view = memoryview(encoded)
        while view:
            view = view[target.write(view) :]
        if reply.last:
            return


def answer(raw: RawFile) -> Reply:
    """Parse one file; whatever goes wrong becomes part of the answer."""
    try:
        return Reply(list(parse(raw)))
    except Unparsable as exc:
        return Reply(error=str(exc), code=exc.code)
    except MemoryError:
        return _out_of_memory(resource.getrlimit(resource.RLIMIT_AS)[0])
    except Exception as exc:  # the process's boundary: parsers raise anything on hostile input
        return Reply(error=f"its parser failed: {type(exc).__name__}: {exc}")


def read(source: IO[bytes]) -> bytes | None:
    """One message; None at the end of the input."""
    header = source.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    (length,) = HEADER.unpack(header)
    return source.read(length)


def confine(memory_bytes: int) -> None:
    """Bound this process's memory, and take away what parsing has no need of."""
    with open("/proc/self/statm", "rb") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    _lower(resource.RLIMIT_AS, used + memory_bytes)
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_CORE, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)  # refused in some containers: no matter


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, even in the middle of a file. (The kernel's own
    signal for that comes when the parent's thread ends, which may have many.)"""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _lower(which: int, limit: int) -> None:
    hard = resource.getrlimit(which)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(which, (limit, limit))


def _out_of_memory(limit: int) -> Reply:
    return Reply(
        error=f"parsing it takes more memory than load.memory_mib allows ({limit >> 20} MiB "
        "with the parser itself): split the file or raise the limit",
        last=True,
    )


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Limits))
