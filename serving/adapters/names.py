"""What adapters and their versions may be called, and how versions are ordered."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from serving.errors import AdapterNotFound

MAX_LENGTH = 128
_BASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FINE_TUNED = re.compile(
    r"ft:([A-Za-z0-9][A-Za-z0-9._/-]{0,127}):([a-z0-9][a-z0-9-]{0,62})"
    r":((?:[A-Za-z0-9][A-Za-z0-9._-]{0,63})?):([0-9a-f]{10})(?::ckpt-step-([0-9]{1,9}))?"
)
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


@dataclass(frozen=True)
class FineTunedName:
    """`ft:<base>:<tenant>:<suffix>:<id>`, and `…:ckpt-step-<n>` for what was on the way there."""

    base: str
    tenant: str
    suffix: str
    """May be empty."""
    id: str
    step: int | None = None

    @staticmethod
    def parse(text: str) -> FineTunedName | None:
        """Read a name; None for any other kind of name."""
        match = _FINE_TUNED.fullmatch(text)
        if match is None:
            return None
        base, tenant, suffix, id, step = match.groups()
        return FineTunedName(base, tenant, suffix, id, None if step is None else int(step))

    @property
    def adapters(self) -> tuple[str, str]:
        """Where it may lie: jobs of one tenant and suffix make versions of one adapter. The
        second is for a suffix that the tenant has used with another base model."""
        first = f"{self.tenant}.{self.suffix or self.id}"
        digest = hashlib.sha256(self.base.encode()).hexdigest()[:8]
        return first, f"{first[:100]}.{digest}"

    def at(self, step: int) -> FineTunedName:
        """The name of a checkpoint."""
        return FineTunedName(self.base, self.tenant, self.suffix, self.id, step)

    def __str__(self) -> str:
        end = "" if self.step is None else f":ckpt-step-{self.step}"
        return f"ft:{self.base}:{self.tenant}:{self.suffix}:{self.id}{end}"


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
