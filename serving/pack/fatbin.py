"""The GPU code inside a shared library: listed by architecture, and blanked where never loaded.

A library's `.nv_fatbin` section is a row of fat binaries, one a translation
unit. Each is a header and a row of images of the same kernels: a cubin is
machine code for one architecture, PTX is compiled by the driver for newer
ones. The driver reads the images' headers and loads the one that fits best.

An unneeded image keeps its header, and its payload becomes zeros: every offset
in the library stays, and the zeros compress to nothing. That is also how
Negativa-ML (arXiv:2503.14226) removes them. NVIDIA documents none of the
layout; `cuobjdump -lelf -lptx` agrees with `images` on it. Whatever deviates
from it raises FatbinError, and nothing is changed.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import groupby

from serving.pack.errors import FatbinError

SECTION = ".nv_fatbin"
WRAPPERS = ".nvFatBinSegment"
WRAPPER_BYTES = 24
MAGIC = 0xBA55ED50
HEADER = struct.Struct("<IHHQ")  # magic, version, header bytes, bytes after the header
IMAGE = struct.Struct("<HHIQIIHHI")  # kind, version, header bytes, payload bytes, …, arch
FLAGS_AT = 40
SPECIFIC = 0x10_0000  # sm_90a: this very architecture
FAMILY = 0x20_0000  # sm_100f: the same major version


class Kind(IntEnum):
    """What an image holds."""

    PTX = 1
    CUBIN = 2


@dataclass(frozen=True)
class Image:
    """One image. `arch` is 90 for sm_90; `start` and `size` are its payload's, in bytes."""

    group: int
    """Which fat binary of the library it belongs to."""
    kind: Kind
    arch: int
    flags: int
    start: int
    size: int

    @property
    def suffix(self) -> str:
        return "a" if self.flags & SPECIFIC else "f" if self.flags & FAMILY else ""

    @property
    def name(self) -> str:
        return f"{'sm' if self.kind is Kind.CUBIN else 'compute'}_{self.arch}{self.suffix}"

    def runs_on(self, arch: int) -> bool:
        """Whether a GPU of `arch` can load it."""
        if self.suffix == "a":
            return self.arch == arch
        if self.kind is Kind.PTX and not self.suffix:
            return self.arch <= arch
        return self.arch // 10 == arch // 10 and self.arch <= arch


def parse_arch(text: str) -> int:
    """ "sm_90" or "sm_90a" as 90. Raises FatbinError."""
    if not (found := re.fullmatch(r"sm_(\d{2,3})[af]?", text)):
        raise FatbinError(f"{text!r} is no GPU architecture such as sm_90")
    return int(found[1])


def images(library: bytes) -> list[Image]:
    """Every image in `library`, an ELF file; empty without GPU code. Raises FatbinError."""
    sections = _sections(library)
    if SECTION not in sections:
        return []
    start, size = sections[SECTION]
    found = list(_walk(library, start, start + size))
    groups = len({image.group for image in found})
    wrappers = sections.get(WRAPPERS, (0, 0))[1] // WRAPPER_BYTES
    if groups != wrappers:
        raise FatbinError(f"{groups} fat binaries found, {wrappers} registered by the library")
    return found


def needed(group: Sequence[Image], arch: int) -> list[Image]:
    """Of one fat binary: the cubins of the nearest architecture, or PTX if no cubin runs."""
    for kind in (Kind.CUBIN, Kind.PTX):
        fitting = [image for image in group if image.kind is kind and image.runs_on(arch)]
        if fitting:
            nearest = max(image.arch for image in fitting)
            return [image for image in fitting if image.arch == nearest]
    return []


def blank(library: bytes, arch: int) -> tuple[bytes, list[Image]]:
    """`library` of the same length, and the images whose payload is now zeros.

    Raises FatbinError; what it does not understand is never half done.
    """
    dropped: list[Image] = []
    for _, members in groupby(images(library), key=lambda image: image.group):
        group = list(members)
        kept = needed(group, arch)
        dropped += [image for image in group if image not in kept]
    changed = bytearray(library)
    for image in dropped:
        changed[image.start : image.start + image.size] = bytes(image.size)
    return bytes(changed), dropped


def _sections(library: bytes) -> dict[str, tuple[int, int]]:
    """Name to offset and size in bytes, of a 64-bit little-endian ELF file."""
    if library[:6] != b"\x7fELF\x02\x01":
        raise FatbinError("not a 64-bit little-endian ELF file")
    try:
        (table,) = struct.unpack_from("<Q", library, 0x28)
        entry, count, names = struct.unpack_from("<HHH", library, 0x3A)
        rows = [struct.unpack_from("<IIQQQQ", library, table + entry * i) for i in range(count)]
        strings = rows[names][4]
        found: dict[str, tuple[int, int]] = {}
        for row in rows:
            at = strings + row[0]
            found[library[at : library.index(b"\0", at)].decode()] = (row[4], row[5])
    except (struct.error, IndexError, ValueError, OverflowError) as exc:
        raise FatbinError(f"damaged ELF section table: {exc}") from exc
    return found


def _walk(library: bytes, at: int, end: int) -> Iterator[Image]:
    group = 0
    while at < end:
        if not any(library[at : at + 8]):  # padding up to the next multiple of eight
            at += 8
            continue
        try:
            magic, _, header, size = HEADER.unpack_from(library, at)
        except struct.error as exc:
            raise FatbinError(f"cut off at byte {at}") from exc
        if magic != MAGIC or header < HEADER.size or at + header + size > end:
            raise FatbinError(f"no fat binary at byte {at}")
        yield from _members(library, group, at + header, at + header + size)
        at += header + size
        group += 1


def _members(library: bytes, group: int, at: int, end: int) -> Iterator[Image]:
    while at < end:
        if at + FLAGS_AT + 8 > end:
            raise FatbinError(f"cut off at byte {at}")
        kind, _, header, size, _, _, _, _, arch = IMAGE.unpack_from(library, at)
        (flags,) = struct.unpack_from("<Q", library, at + FLAGS_AT)
        if kind not in (Kind.PTX, Kind.CUBIN) or header < FLAGS_AT + 8:
            raise FatbinError(f"an image of unknown kind {kind} at byte {at}")
        if at + header + size > end:
            raise FatbinError(f"an image longer than its fat binary at byte {at}")
        yield Image(group, Kind(kind), arch, flags, at + header, size)
        at += header + size
