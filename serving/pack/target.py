"""The interpreter and platform that a bundle is for, which need not be this machine's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from packaging.tags import Tag, compatible_tags, cpython_tags

from serving.pack.errors import PackError

OLDEST_GLIBC_MINOR = 5
LEGACY = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}
"""Names from before PEP 600, by the glibc 2.x that they stand for."""


@dataclass(frozen=True)
class Target:
    """`python` as "3.12", `platform` as "manylinux_2_28_x86_64": the glibc that the host has."""

    python: str
    platform: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"3\.\d+", self.python):
            raise PackError(f"--python {self.python!r} is no version such as 3.12")
        if not re.fullmatch(r"manylinux_2_\d+_(x86_64|aarch64)", self.platform):
            raise PackError(
                f"--platform {self.platform!r} is not of the form manylinux_2_28_x86_64, where "
                "2_28 is the host's glibc (`ldd --version`)"
            )

    @property
    def machine(self) -> str:
        return self.platform.split("_", 3)[3]

    @property
    def platforms(self) -> list[str]:
        """Every platform tag that runs there, newest first."""
        newest = int(self.platform.split("_")[2])
        names: list[str] = []
        for minor in range(newest, OLDEST_GLIBC_MINOR - 1, -1):
            names.append(f"manylinux_2_{minor}_{self.machine}")
            if minor in LEGACY:
                names.append(f"{LEGACY[minor]}_{self.machine}")
        return [*names, f"linux_{self.machine}"]

    @cached_property
    def tags(self) -> frozenset[Tag]:
        """Every tag of a wheel that can be installed there."""
        version = tuple(int(part) for part in self.python.split("."))
        tags = {*cpython_tags(version, platforms=self.platforms)}
        return frozenset(tags | {*compatible_tags(version, platforms=self.platforms)})

    @property
    def markers(self) -> dict[str, str]:
        """The environment that requirement markers are evaluated in."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }
