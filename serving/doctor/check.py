"""One finding."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Status(Enum):
    """`warn`: works, but worse or not yet. `fail`: will not work until mended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found and, unless all is well, how to mend it."""

    name: str
    status: Status
    detail: str
    mend: str = ""


def ok(name: str, detail: str) -> Check:
    """All is well."""
    return Check(name, Status.OK, detail)


def warn(name: str, detail: str, mend: str) -> Check:
    """Works, but worse or not yet."""
    return Check(name, Status.WARN, detail, mend)


def fail(name: str, detail: str, mend: str) -> Check:
    """Will not work until mended."""
    return Check(name, Status.FAIL, detail, mend)
