"""Wheels on disk, fetched by pip as it is configured, kept for the next bundle."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from serving.pack.errors import PackError
from serving.pack.locks import Pin
from serving.pack.target import Target

TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True)
class Wheel:
    """A wheel file. `sha256` is hexadecimal."""

    path: Path
    name: str
    version: Version
    sha256: str

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def metadata(self) -> Message:
        """The fields of its METADATA."""
        with zipfile.ZipFile(self.path) as archive:
            path = next(
                name
                for name in archive.namelist()
                if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)
            )
            return HeaderParser().parsestr(archive.read(path).decode())

    def requirements(self) -> list[Requirement]:
        """What it requires, whatever the markers say."""
        return [Requirement(line) for line in self.metadata().get_all("Requires-Dist", [])]


def open_wheel(path: Path) -> Wheel:
    """The wheel at `path`, its digest computed."""
    name, version, _, _ = parse_wheel_filename(path.name)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Wheel(path, canonicalize_name(name), version, digest)


class WheelCache:
    """Wheels for one target in `directory`, which bundles for other targets may share."""

    def __init__(self, directory: Path, target: Target, say: Callable[[str], None]) -> None:
        self._directory = directory
        self._target = target
        self._say = say
        directory.mkdir(parents=True, exist_ok=True)

    def get(self, pins: Sequence[Pin]) -> dict[str, Wheel]:
        """The wheel of each pin by name, fetched if it is not there. Raises PackError."""
        found = {pin.name: wheel for pin in pins if (wheel := self._find(pin))}
        missing = [pin for pin in pins if pin.name not in found]
        if missing:
            self._say(f"fetching {', '.join(pin.name for pin in missing)}")
            self._fetch(missing)
            for pin in missing:
                wheel = self._find(pin)
                if wheel is None:
                    raise PackError(f"pip fetched no wheel of {pin.name} {pin.version} that fits")
                found[pin.name] = wheel
        return found

    def _find(self, pin: Pin) -> Wheel | None:
        for path in self._directory.glob(f"{pin.name.replace('-', '[-_.]')}-*.whl"):
            try:
                name, version, _, tags = parse_wheel_filename(path.name)
            except InvalidWheelFilename:
                continue
            if name != pin.name or version != pin.version or not tags & self._target.tags:
                continue
            wheel = open_wheel(path)
            if wheel.sha256 in pin.hashes:
                return wheel
        return None

    def _fetch(self, pins: Sequence[Pin]) -> None:
        said = self._download(pins)
        if "No matching distribution" in said and any(pin.version.local == "cpu" for pin in pins):
            said = self._download(pins, "--extra-index-url", TORCH_CPU_INDEX)
        if said:
            errors = [line for line in said.splitlines() if line.startswith("ERROR")]
            raise PackError(
                "pip could not fetch the wheels:\n" + "\n".join(errors or said.splitlines()[-3:])
            )

    def _download(self, pins: Sequence[Pin], *options: str) -> str:
        """Run `pip download`; what it said if it failed. Its markers would be this Python's."""
        platforms = [part for name in self._target.platforms for part in ("--platform", name)]
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write("\n".join(pin.line for pin in pins) + "\n")
            file.flush()
            done = subprocess.run(
                [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes",
                 "--only-binary", ":all:", "--progress-bar", "off", "--implementation", "cp",
                 "--python-version", self._target.python, *platforms, *options,
                 "--dest", str(self._directory), "-r", file.name],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
        return done.stdout + done.stderr if done.returncode else ""
