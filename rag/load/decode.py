"""Bytes to text."""

from __future__ import annotations

import codecs

from rag.errors import Unparsable
from rag.load.build import clean

__all__ = ["decode", "looks_binary"]

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SAMPLE = 1 << 16
_PLAUSIBLE = frozenset(
    ("big5", "cp1250", "cp1251", "cp1253", "cp1255", "cp1256", "cp932", "cp949", "euc_jp", "euc_kr",
     "gb18030", "gb2312", "gbk", "koi8_r", "koi8_u", "shift_jis")
)  # fmt: skip
"""Encodings that files are still found in. On short texts the guess is often another, such as
one of old Macs, and wrong."""
_FEW = 0.01
"""Up to this share of broken bytes a text is taken for UTF-8 with damage."""


def decode(data: bytes) -> str:
    """Text of `data`: by its byte order mark, as UTF-8, or in the encoding it looks like.

    Damaged bytes become U+FFFD. Raises Unparsable for binary data.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return clean(data[len(mark) :].decode(encoding, "replace"))
    if looks_binary(data):
        raise Unparsable("it is binary data of no known format", "unsupported_file")
    try:
        return data.decode()
    except UnicodeDecodeError:
        text = data.decode(errors="replace")
    damaged = text.count("\ufffd")
    if damaged <= max(1, _FEW * len(text)):
        return text
    return clean(data.decode(_guess(data), "replace"))


def looks_binary(data: bytes) -> bool:
    """Whether it holds NUL bytes and is no UTF-16 or UTF-32 with a mark."""
    marked = any(data.startswith(mark) for mark, _ in _BOMS[1:])
    return not marked and b"\0" in data[:_SAMPLE]


def _guess(data: bytes) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(data[:_SAMPLE]).best()
    if best is None or "cp1252" in best.could_be_from_charset:
        return "cp1252"
    return best.encoding if best.encoding in _PLAUSIBLE else "cp1252"
