"""What a host has installed, as `pip list` or `pip freeze` tells it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from serving.pack.errors import PackError

FREEZE = re.compile(r"^([A-Za-z0-9][\w.-]*)===?(\S+)$")
COLUMNS = re.compile(r"^([A-Za-z0-9][\w.-]*)\s+(\d\S*)(\s+\S+)?$")
FROM_FILE = re.compile(r"^([A-Za-z0-9][\w.-]*) @ (\S+)$")


@dataclass(frozen=True)
class HostPackages:
    """Canonical package names to versions; empty for a host with nothing."""

    versions: dict[str, Version] = field(default_factory=dict)

    def satisfies(self, requirement: Requirement) -> bool:
        """Whether the host's version fits; a local label (`+cu130`) fits its public version."""
        found = self.versions.get(canonicalize_name(requirement.name))
        return found is not None and requirement.specifier.contains(found, prereleases=True)


def read_host_packages(path: Path) -> HostPackages:
    """Read `pip list` (columns, freeze or JSON) or `pip freeze` output. Raises PackError.

    A package whose version cannot be told (an editable install, an archive) counts as absent.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise PackError(f"cannot read the host's package list {path}: {exc.strerror}") from exc
    pairs = _from_json(text, path) if text.lstrip().startswith("[") else _from_lines(text)
    versions: dict[str, Version] = {}
    for name, version in pairs:
        try:
            versions[canonicalize_name(name)] = Version(version)
        except InvalidVersion:
            continue
    if not versions:
        raise PackError(
            f"{path} names no package; make it on the host: `python3 -m pip list --format=json`"
        )
    return HostPackages(versions)


def _from_json(text: str, path: Path) -> list[tuple[str, str]]:
    try:
        return [(str(row["name"]), str(row["version"])) for row in json.loads(text)]
    except (ValueError, KeyError, TypeError) as exc:
        raise PackError(f"{path} is not what `pip list --format=json` prints: {exc}") from exc


def _from_lines(text: str) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for line in (raw.strip() for raw in text.splitlines()):
        if found := FREEZE.match(line) or COLUMNS.match(line):
            pairs.append((found[1], found[2]))
        elif found := FROM_FILE.match(line):
            try:
                pairs.append((found[1], str(parse_wheel_filename(found[2].rsplit("/", 1)[-1])[1])))
            except InvalidWheelFilename:
                continue
    return pairs
