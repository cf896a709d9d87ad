"""Takes an answer as it is generated and cuts it into plain text, citation markers, and what an
answer must not have: images, HTML, and links to anywhere but the documents.

Text is held back only while it could still become one of these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ["Marker", "Piece", "Removed", "Splitter", "Text"]

_MARKER = re.compile(r"\[\s*(\d{1,4}(?:\s*[,;]\s*\d{1,4})*)\s*\]")
_IMAGE = re.compile(r"!\[[^\]]*\]\s?(?:\([^)]*\)|\[[^\]]*\])", re.S)
_LINK = re.compile(r"\[([^\[\]]*)\]\(([^)]*)\)", re.S)
_DEFINITION = re.compile(r"\[[^\[\]]*\]:\s*\S+(?=\s)")
_TAG = re.compile(r"<(?:/?[A-Za-z!][^>]*|[^\s<>]+:[^\s>]*)>", re.S)
_URL = re.compile(r"(?:[a-z][a-z0-9+.-]{1,15}:)?//[^\s<>\"')\]]+(?=[\s<>\"')\]])", re.I)
_START = re.compile(r"[!\[<]|(?:[a-z][a-z0-9+.-]{0,15}:)?//|[a-z][a-z0-9+.-]{0,15}:?/?\Z|/\Z", re.I)
_LONGEST = 4_000


@dataclass(frozen=True, slots=True)
class Text:
    """To pass on."""

    text: str


@dataclass(frozen=True, slots=True)
class Marker:
    """Passages that the answer names here."""

    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Removed:
    """Something an answer must not have."""

    what: str


Piece = Text | Marker | Removed


class Splitter:
    """Incremental: `feed` it pieces of any size, then `finish`."""

    def __init__(self, documents: Sequence[str] = (), hosts: Sequence[str] = ()) -> None:
        """`documents` are the passages' own addresses, `hosts` those that links may lead to."""
        self._held = ""
        self._documents = frozenset(documents)
        self._hosts = frozenset(host.casefold() for host in hosts)

    def feed(self, text: str) -> Iterator[Piece]:
        """What `text` settles."""
        self._held += text
        yield from self._drain(last=False)

    def finish(self) -> Iterator[Piece]:
        """The rest."""
        yield from self._drain(last=True)

    def _drain(self, *, last: bool) -> Iterator[Piece]:
        # A blank stands in for the end, so that what ends an address is always there.
        text = self._held + (" " if last else "")
        at = done = 0
        while at < len(text) and (start := _START.search(text, at)) is not None:
            at = start.start()
            end, pieces = self._construct(text, at)
            if end == at:
                if self._could_grow(text, at) and not last:
                    break
                at += 1
                continue
            if at > done:
                yield Text(text[done:at])
            yield from pieces
            at = done = end
        else:
            at = len(text)
        settled = text[done:at]
        self._held = "" if last else text[at:]
        if last and settled.endswith(" "):
            settled = settled[:-1]
        if settled:
            yield Text(settled)

    def _construct(self, text: str, at: int) -> tuple[int, list[Piece]]:
        """What begins at `at`, and where it ends; `at` itself if nothing is complete there."""
        if found := _IMAGE.match(text, at):
            return found.end(), [Removed("image")]
        if found := _MARKER.match(text, at):
            if text[found.end() : found.end() + 1] != "(" and len(text) > found.end():
                numbers = tuple(int(n) for n in re.findall(r"\d+", found.group(1)))
                return found.end(), [Marker(numbers)]
            if len(text) == found.end():
                return at, []
        if found := _LINK.match(text, at):
            if self._allowed(found.group(2)):
                return found.end(), [Text(found.group())]
            return found.end(), [Text(found.group(1)), Removed("link")]
        if found := _DEFINITION.match(text, at):
            return found.end(), [Removed("link")]
        if found := _TAG.match(text, at):
            return found.end(), [Removed("tag")]
        if found := _URL.match(text, at):
            url = found.group()
            return found.end(), [Text(url) if self._allowed(url) else Removed("link")]
        return at, []

    def _could_grow(self, text: str, at: int) -> bool:
        """Whether more text could make something of what begins at `at`."""
        rest = text[at:]
        if len(rest) > _LONGEST:
            return False
        if rest[0] == "!":
            return rest == "!" or rest[1] == "["
        if rest[0] == "[":
            closed = rest.find("]")
            if "[" in rest[1 : closed if closed >= 0 else None]:
                return False
            return closed < 0 or closed + 1 == len(rest) or rest[closed + 1] in "(:"
        if rest[0] == "<":
            return ">" not in rest and (len(rest) == 1 or not rest[1].isspace())
        return not any(c.isspace() or c in "<>\"')]" for c in rest)

    def _allowed(self, url: str) -> bool:
        address = url.strip().split()[0] if url.strip() else ""
        if address in self._documents:
            return True
        try:
            parts = urlsplit(address)
        except ValueError:
            return False
        return parts.scheme in {"http", "https"} and (parts.hostname or "") in self._hosts
