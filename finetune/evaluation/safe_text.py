"""Texts that anybody may have written, made fit for a report. Pure functions."""

from __future__ import annotations

import html
import re

_SHOWN = 2000
# Control characters, and those that reorder or hide text (bidirectional marks, tags).
# Joiners stay: scripts need them.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufdd0-\ufdef"
    "\ufeff\ufff9-\uffff\U000e0000-\U000e0fff\ud800-\udfff]"
)
_MARKDOWN = re.compile(r"[\\`*_\[\]|~<>&:@$]")
_TICKS = re.compile(r"`+")


def shown(text: str, longest: int = _SHOWN) -> str:
    """Control characters written as `<U+202E>`, what is beyond `longest` characters counted."""
    rest = len(text) - longest
    plain = _INVISIBLE.sub(_named, text[:longest].replace("\r\n", "\n"))
    return f"{plain}… ({rest:,} more characters)" if rest > 0 else plain


def html_text(text: str, longest: int = _SHOWN) -> str:
    """For an HTML element or a quoted attribute."""
    return html.escape(shown(text, longest))


def markdown_line(text: str, longest: int = 200) -> str:
    """For a table's cell or a heading: one line in which nothing is markup."""
    line = " ".join(shown(text, longest).split())
    return _MARKDOWN.sub(lambda match: f"&#{ord(match[0])};", line)


def markdown_block(text: str, longest: int = _SHOWN) -> str:
    """A fenced block that the text cannot end."""
    plain = shown(text, longest)
    fence = "`" * max(3, 1 + max((len(run) for run in _TICKS.findall(plain)), default=0))
    return f"{fence}text\n{plain}\n{fence}"


def _named(match: re.Match[str]) -> str:
    return f"<U+{ord(match[0]):04X}>"
