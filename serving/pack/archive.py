"""One compressed tar stream, cut into parts of a given size.

The stream is a row of independent xz streams of CHUNK_BYTES, which threads compress side by side
and any xz reads as one. Cutting the stream, instead of making an archive a part, lets a file be
larger than a part; that parts arrive one by one costs nothing, since each has its own checksum.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import shutil
import subprocess
import tarfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from serving.pack.errors import PackError

Compression = Literal["xz", "zstd", "none"]
CHUNK_BYTES = 64 * 2**20
SMALL_BYTES = 2**20
COPY_BYTES = 2**20
THREADS = os.cpu_count() or 1


@dataclass(frozen=True)
class Member:
    """A file and its path in the archive."""

    path: Path
    name: str


@dataclass(frozen=True)
class Part:
    """A part in the output directory. `size` in bytes, `sha256` hexadecimal."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Written:
    """The parts, and what each member takes in them; empty where compression cannot tell."""

    parts: list[Part]
    packed_bytes: dict[str, int]


class Sink(Protocol):
    """Where bytes go."""

    def write(self, data: bytes, /) -> object: ...

    def begin(self, name: str) -> None:
        """What follows belongs to the member `name`."""

    def close(self) -> dict[str, int]:
        """Finish; compressed bytes by member, where they are known."""


def write_parts(
    members: Sequence[Member],
    directory: Path,
    *,
    prefix: str,
    compression: Compression,
    level: int,
    part_bytes: int,
) -> Written:
    """Write `members` into `directory` as `prefix`000, `prefix`001…

    Raises PackError when zstd is asked for and not there.
    """
    parts = _Parts(directory, prefix, part_bytes)
    sink = _compressor(parts, compression, level)
    with tarfile.open(mode="w|", fileobj=_Writer(sink), format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            sink.begin(member.name)
            tar.add(member.path, member.name, recursive=False, filter=_plain)
    packed = sink.close()
    return Written(parts.finish(), packed)


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nothing of the machine that packs: no owner, no times."""
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = 0
    return info


class _Writer(io.RawIOBase):
    """A sink as the file object that tarfile writes to."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._sink.write(data)
        return len(data)


def _compressor(parts: _Parts, compression: Compression, level: int) -> Sink:
    match compression:
        case "xz":
            return _Xz(parts, level)
        case "zstd":
            return _Zstd(parts, level)
        case "none":
            return _Plain(parts)


class _Parts:
    """Cuts what is written into files of `part_bytes`."""

    def __init__(self, directory: Path, prefix: str, part_bytes: int) -> None:
        self._directory = directory
        self._prefix = prefix
        self._part_bytes = part_bytes
        self._done: list[Part] = []
        self._file: io.BufferedWriter | None = None
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._file is None:
                name = f"{self._prefix}{len(self._done):03}"
                self._file = (self._directory / name).open("wb")
            piece = view[: self._part_bytes - self._size]
            self._file.write(piece)
            self._digest.update(piece)
            self._size += len(piece)
            view = view[len(piece) :]
            if self._size == self._part_bytes:
                self._end()

    def _end(self) -> None:
        if self._file is not None:
            self._file.close()
            name = Path(self._file.name).name
            self._done.append(Part(name, self._size, self._digest.hexdigest()))
            self._file, self._digest, self._size = None, hashlib.sha256(), 0

    def finish(self) -> list[Part]:
        """All parts in their order."""
        self._end()
        return self._done


class _Plain:
    """No compression."""

    def __init__(self, parts: _Parts) -> None:
        self.write = parts.write

    def begin(self, name: str) -> None:
        """Nothing to note."""

    def close(self) -> dict[str, int]:
        """Nothing to finish."""
        return {}


@dataclass
class _Chunk:
    """Bytes of one or more members, each with its share."""

    data: bytearray = field(default_factory=bytearray)
    shares: dict[str, int] = field(default_factory=dict)


class _Xz:
    """Compresses chunks on all cores; writes them in order."""

    def __init__(self, parts: _Parts, level: int) -> None:
        self._parts = parts
        self._level = level
        self._member = ""
        self._chunk = _Chunk()
        self._pool = ThreadPoolExecutor(THREADS)
        self._pending: deque[tuple[dict[str, int], Future[bytes]]] = deque()
        self._packed: dict[str, int] = {}

    def begin(self, name: str) -> None:
        """A large member begins a chunk, so that what it takes is known."""
        self._member = name
        if len(self._chunk.data) >= SMALL_BYTES:
            self._submit()

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            piece = view[: CHUNK_BYTES - len(self._chunk.data)]
            self._chunk.data += piece
            shares = self._chunk.shares
            shares[self._member] = shares.get(self._member, 0) + len(piece)
            view = view[len(piece) :]
            if len(self._chunk.data) == CHUNK_BYTES:
                self._submit()

    def close(self) -> dict[str, int]:
        """Compress what is left and wait for everything."""
        if self._chunk.data:
            self._submit()
        while self._pending:
            self._take()
        self._pool.shutdown()
        return self._packed

    def _submit(self) -> None:
        chunk, self._chunk = self._chunk, _Chunk()
        future = self._pool.submit(lzma.compress, bytes(chunk.data), preset=self._level)
        self._pending.append((chunk.shares, future))
        while len(self._pending) > THREADS:
            self._take()

    def _take(self) -> None:
        shares, future = self._pending.popleft()
        data, raw = future.result(), sum(shares.values())
        for name, size in shares.items():
            self._packed[name] = self._packed.get(name, 0) + len(data) * size // raw
        self._parts.write(data)


class _Zstd:
    """The `zstd` command, its output read by a thread so that neither pipe fills up."""

    def __init__(self, parts: _Parts, level: int) -> None:
        if shutil.which("zstd") is None:
            raise PackError("--compress zstd needs the command `zstd`; install it, or use xz")
        self._process = subprocess.Popen(
            ["zstd", "-q", "-c", f"-{level}", "--long=27", "-T0"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._pool = ThreadPoolExecutor(1)
        self._reader = self._pool.submit(self._drain, parts)

    def write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)

    def begin(self, name: str) -> None:
        """The command does not tell."""

    def close(self) -> dict[str, int]:
        """Wait for the command. Raises PackError when it failed."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._reader.result()
        self._pool.shutdown()
        assert self._process.stdout is not None
        self._process.stdout.close()
        if self._process.wait():
            raise PackError(f"zstd failed with status {self._process.returncode}")
        return {}

    def _drain(self, parts: _Parts) -> None:
        for block in _blocks(self._process):
            parts.write(block)


def _blocks(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    assert process.stdout is not None
    while block := process.stdout.read(COPY_BYTES):
        yield block
