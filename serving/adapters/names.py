"""What adapters and their versions may be called, and how versions are ordered."""

from __future__ import annotations

import re
from dataclasses import dataclass

from serving.errors import AdapterNotFound

MAX_LENGTH = 128
_BASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TOKEN = re.compile(r"-[A-Za-z]+|[0-9]+|[^0-9-]+|-")
# Files that the store keeps beside the versions.
_RESERVED = frozenset({"state.json"})


def is_part(text: str) -> bool:
    """Whether `text` can name an adapter or a version: one path component, never hidden."""
    return len(text) <= MAX_LENGTH and _PART.fullmatch(text) is not None and text not in _RESERVED


@dataclass(frozen=True)
class AdapterName:
    """`<base>:<name>` (the live version) or `<base>:<name>@<version>`.

    Raises AdapterNotFound for anything else: a name with a slash, a space or a
    leading dot in it is the name of no adapter.
    """

    base: str
    name: str
    version: str | None = None

    def __post_init__(self) -> None:
        if len(self.base) > MAX_LENGTH or not _BASE.fullmatch(self.base):
            raise AdapterNotFound(f"{self.base[:80]!r} is not the name of a model")
        for kind, part in (("an adapter", self.name), ("an adapter version", self.version)):
            if part is not None and not is_part(part):
                raise AdapterNotFound(
                    f"{part[:80]!r} cannot name {kind}: use letters, digits, '.', '_' and '-', "
                    f"beginning with a letter or digit, at most {MAX_LENGTH} of them"
                )

    @staticmethod
    def parse(text: str) -> AdapterName:
        """Read a name as users write it. Raises AdapterNotFound."""
        base, colon, rest = text.partition(":")
        if not colon:
            raise AdapterNotFound(
                f"{text[:80]!r} does not name an adapter: write <base>:<name> or "
                "<base>:<name>@<version>"
            )
        name, at, version = rest.partition("@")
        return AdapterName(base, name, version if at else None)

    def __str__(self) -> str:
        return f"{self.base}:{self.name}" + ("" if self.version is None else f"@{self.version}")


def version_key(version: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Sort key of a version: numbers by value (2 < 10), and `1.0-rc1` before `1.0`."""
    key: list[tuple[int, int, str]] = []
    for token in _TOKEN.findall(version):
        if token[0].isdigit():
            key.append((2, int(token), ""))
        elif token[0] == "-" and len(token) > 1:
            key.append((-1, 0, token))
        else:
            key.append((1, 0, token))
    return (*key, (0, 0, "")), version
