"""Small real wheels and shared libraries with fat binaries, for the tests of `corral pack`."""

from __future__ import annotations

import base64
import hashlib
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.pack.fatbin import MAGIC, SPECIFIC, Kind


@dataclass(frozen=True)
class Code:
    """One image to put into a fat binary."""

    kind: Kind
    arch: int
    payload: bytes
    flags: int = 0x11


CUBIN_75 = Code(Kind.CUBIN, 75, b"seventy-five" * 4)
CUBIN_80 = Code(Kind.CUBIN, 80, b"eighty--" * 8)
CUBIN_90 = Code(Kind.CUBIN, 90, b"ninety--" * 16)
CUBIN_90A = Code(Kind.CUBIN, 90, b"ninety-a" * 16, 0x11 | SPECIFIC)
PTX_80 = Code(Kind.PTX, 80, b"ptx-80--" * 4)
PTX_90 = Code(Kind.PTX, 90, b"ptx-90--" * 4)


def library(groups: Sequence[Sequence[Code]], *, wrappers: int | None = None) -> bytes:
    """A 64-bit ELF file with `groups` in .nv_fatbin, one wrapper each unless told otherwise."""
    fat = b""
    for group in groups:
        body = b"".join(_image(code) for code in group)
        fat += struct.pack("<IHHQ", MAGIC, 1, 16, len(body)) + body
    registered = len(groups) if wrappers is None else wrappers
    contents = {b"": b"", b".nv_fatbin": fat, b".nvFatBinSegment": bytes(24 * registered)}
    names = b"\0".join([*contents, b".shstrtab", b""])
    contents[b".shstrtab"] = names
    offset, data, table = 64, b"", b""
    for name, content in contents.items():
        at = names.index(b"\0" + name + b"\0") + 1 if name else 0
        row = struct.pack("<IIQQQQ", at, 1, 0, 0, offset + len(data), len(content))
        table += row + bytes(64 - len(row))
        data += content + bytes(-len(content) % 16)
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + bytes(24) + struct.pack("<Q", offset + len(data))
    head += bytes(58 - len(head)) + struct.pack("<HHH", 64, len(contents), len(contents) - 1)
    return head + data + table


def _image(code: Code) -> bytes:
    row = struct.pack("<HHIQIIHHI", code.kind, 0x101, 64, len(code.payload), 0, 0, 0, 0, code.arch)
    return row + bytes(8) + struct.pack("<Q", code.flags) + bytes(16) + code.payload


def make_wheel(
    directory: Path,
    name: str,
    files: Mapping[str, bytes],
    *,
    version: str = "1.0",
    requires: Sequence[str] = (),
    entry_points: str = "",
) -> Path:
    """Write a wheel with METADATA, RECORD and `files`; returns its path."""
    info = f"{name}-{version}.dist-info"
    lines = [f"Requires-Dist: {line}\n" for line in requires]
    everything = {
        **files,
        f"{info}/METADATA": "".join(
            ["Metadata-Version: 2.1\n", f"Name: {name}\nVersion: {version}\n", *lines]
        ).encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if entry_points:
        everything[f"{info}/entry_points.txt"] = entry_points.encode()
    rows = [f"{path},sha256={record_digest(data)},{len(data)}" for path, data in everything.items()]
    everything[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    path = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in everything.items():
            archive.writestr(member, data)
    return path


def record_digest(data: bytes) -> str:
    """As in a RECORD."""
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
