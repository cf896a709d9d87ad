"""Which packages go into a bundle: what the project requires, followed through the wheels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from serving.pack.cache import Wheel, WheelCache
from serving.pack.errors import PackError
from serving.pack.host import HostPackages
from serving.pack.locks import Lock
from serving.pack.target import Target
from serving.pack.unused import LOOSE


@dataclass
class Closure:
    """Wheels to pack, and why other requirements are not among them, by canonical name."""

    wheels: dict[str, Wheel] = field(default_factory=dict)
    omitted: dict[str, str] = field(default_factory=dict)
    on_host: dict[str, str] = field(default_factory=dict)
    """What the host's own version serves."""
    replaces: dict[str, str] = field(default_factory=dict)
    """Packages of the bundle that the host has too, in this other version, and why."""


def resolve(
    roots: Sequence[Requirement],
    lock: Lock,
    cache: WheelCache,
    target: Target,
    *,
    host: HostPackages,
    unused: Mapping[str, str],
) -> Closure:
    """Follow `roots` through the lock, package by package. Nothing is chosen but what it pins.

    What the host has in a version that fits everyone who asks is left to it, and so is all
    that it requires. Raises PackError for a host's package that fits some and not others.
    """
    found = Closure()
    walked: dict[str, set[str]] = {}
    wave = list(roots)
    while wave:
        wanted: dict[str, set[str]] = {}
        for requirement in wave:
            name = canonicalize_name(requirement.name)
            if _place(requirement, name, found, lock, host, unused):
                new = {"", *requirement.extras} - walked.setdefault(name, set())
                walked[name] |= new
                if new:
                    wanted.setdefault(name, set()).update(new)
        wheels = cache.get([lock.pins[name] for name in wanted])
        found.wheels |= wheels
        wave = [
            requirement
            for name, wheel in wheels.items()
            for requirement in required(wheel, wanted[name], target)
        ]
    return found


def _place(
    requirement: Requirement,
    name: str,
    found: Closure,
    lock: Lock,
    host: HostPackages,
    unused: Mapping[str, str],
) -> bool:
    """Note where `requirement` is met; whether that is in the bundle."""
    if name in unused:
        found.omitted[name] = unused[name]
        return False
    have = host.versions.get(name)
    if name not in found.replaces and host.satisfies(requirement):
        found.on_host[name] = str(have)
        return False
    if name not in lock.pins:
        found.omitted[name] = f"not in {lock.path.name}: text serving never imports it"
        return False
    pinned = lock.pins[name].version
    if have is not None and name not in found.replaces:
        if name == "torch":
            raise PackError(f"the host's torch {have} does not fit {requirement}")
        found.replaces[name] = f"{have} (wanted: {requirement})"
        found.on_host.pop(name, None)
    if not requirement.specifier.contains(pinned, prereleases=True) and name != "torch":
        raise PackError(f"{lock.path.name} pins {name} {pinned}, which does not fit {requirement}")
    return True


def required(wheel: Wheel, extras: set[str], target: Target) -> list[Requirement]:
    """What `wheel` requires on `target`, by itself (the extra "") and with its extras."""
    environments = [{**target.markers, "extra": extra} for extra in sorted(extras)]
    return [
        requirement
        for requirement in wheel.requirements()
        if (wheel.name, canonicalize_name(requirement.name)) not in LOOSE
        if requirement.marker is None
        or any(requirement.marker.evaluate(environment) for environment in environments)
    ]
