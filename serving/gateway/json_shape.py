"""How deep a JSON text nests, and how many containers it has, without parsing it.

The count comes from brackets outside of strings, by C functions over the bytes: linear,
one pass, no recursion. What is not JSON gets an answer too; the decoder judges that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import accumulate

_STRINGS = re.compile(rb'"[^"]*"')
_OTHER_BYTES = bytes(byte for byte in range(256) if byte not in b'"[]{}')
_TO_STEP = bytes.maketrans(b"[]{}", b"\x01\xff\x01\xff")
_STEP = tuple(value if value < 128 else value - 256 for value in range(256))


@dataclass(frozen=True)
class Shape:
    """Of a JSON text."""

    depth: int
    containers: int


def exceeds(text: bytes, *, depth: int, containers: int) -> Shape | None:
    """The shape of `text` if it is beyond a limit, else None.

    Text with no more opening brackets than `depth` cannot be, and costs two scans.
    """
    opening = text.count(b"{") + text.count(b"[")
    if opening <= min(depth, containers):
        return None
    brackets = _brackets(text)
    opening = brackets.count(b"\x01")
    if opening > containers:
        return Shape(0, opening)
    if opening <= depth:
        return None
    deepest = max(accumulate(map(_STEP.__getitem__, brackets)), default=0)
    return Shape(deepest, opening) if deepest > depth else None


def _brackets(text: bytes) -> bytes:
    """The brackets outside of strings, as steps down (1) and up (255).

    Escapes go first, so that every quote left begins or ends a string; of most strings
    nothing but the two quotes remains.
    """
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    quotes_and_brackets = text.translate(_TO_STEP, _OTHER_BYTES).replace(b'""', b"")
    return _STRINGS.sub(b"", quotes_and_brackets)
