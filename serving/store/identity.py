"""Who asks: everything a gateway must know of a key or token to judge a request."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["admin", "member", "service"]
HOST = "default"
"""The tenant to which the stack itself belongs."""


class Allow:
    """A list of glob patterns, compiled; `None` allows everything, an empty list nothing."""

    __slots__ = ("_match", "patterns")

    def __init__(self, patterns: Sequence[str] | None) -> None:
        self.patterns = None if patterns is None else tuple(patterns)
        joined = "|".join(fnmatch.translate(pattern) for pattern in patterns or ())
        self._match = None if patterns is None else re.compile(joined or r"(?!)").match

    def __call__(self, name: str) -> bool:
        return self._match is None or self._match(name) is not None

    def __repr__(self) -> str:
        return f"Allow({self.patterns!r})"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks. Of a rotated key the old and the new secret share `lineage`."""

    key_id: str
    """The key's id, or `oidc:<subject>`: what the audit log names."""
    lineage: str
    """What limits and usage are kept under; the first key's id."""
    tenant_id: str
    role: Role
    name: str
    models: Allow
    """Base models, by the key; `tenant_models` must allow them too."""
    tenant_models: Allow
    adapters: Allow
    """Adapters as `base:name`."""
    stores: Allow
    endpoints: Allow
    """Paths, such as `/v1/chat/completions`."""
    cache_salt: str = field(repr=False)
    """Keeps the tenant's prefix cache apart. Set by the server, never shown."""
    expires_us: int | None = None
    limited: bool = False
    """The key or its tenant has a limit of its own; models' limits are the ledger's matter."""

    def may_use(self, model: str, adapter: str | None = None, owner: str | None = None) -> bool:
        """Whether a request for base `model`, with adapter `name` or none, is allowed.

        What belongs to a tenant (`owner`) is for its keys, and for the stack's admins.
        """
        if not (self.models(model) and self.tenant_models(model)):
            return False
        if owner is not None and owner != self.tenant_id and not self.is_admin:
            return False
        return adapter is None or self.adapters(f"{model}:{adapter}")

    @property
    def is_admin(self) -> bool:
        """Runs the stack: an admin of the tenant `default`, to which the stack belongs."""
        return self.role == "admin" and self.tenant_id == HOST

    @property
    def is_operator(self) -> bool:
        """May watch the stack as a whole: an admin, or a service of the same tenant."""
        return self.role in ("admin", "service") and self.tenant_id == HOST
