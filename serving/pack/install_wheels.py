"""Unpacks wheels as pip does, for install.py on a host whose Python has no pip.

    python3 install_wheels.py ROOT SITE PYTHON WHEEL...

Standard library only, Python 3.9 or newer; it is copied into every bundle.
"""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path, PurePosixPath


class Place:
    """Where packages go; `python` is named in the commands' first lines."""

    def __init__(self, root: Path, site: Path, python: Path) -> None:
        self.root = root
        self.site = site
        self.bin = root / "bin"
        self.python = python


def unpack_wheel(place: Place, wheel: Path) -> None:
    """What pip does with a wheel: files, scripts, and INSTALLER last."""
    roots = {"purelib": place.site, "platlib": place.site, "scripts": place.bin,
             "data": place.root, "headers": place.root / "include"}  # fmt: skip
    info = ""
    place.bin.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            parts = PurePosixPath(member.filename).parts
            if parts[0].endswith(".dist-info"):
                info = parts[0]
            target = place.site.joinpath(*parts)
            if parts[0].endswith(".data"):
                target = roots[parts[1]].joinpath(*parts[2:])
            target.parent.mkdir(parents=True, exist_ok=True)
            content = archive.read(member)
            if target.parent == place.bin and content.startswith(b"#!python"):
                content = b"#!" + os.fsencode(place.python) + content[len(b"#!python") :]
            target.write_bytes(content)
            mode = (member.external_attr >> 16) & 0o777
            target.chmod(0o755 if target.parent == place.bin else mode or 0o644)
    entries = place.site / info / "entry_points.txt"
    for name, value in console_scripts(entries):
        write_script(place, name, value)
    (place.site / info / "INSTALLER").write_text("corral\n", encoding="utf-8")


def console_scripts(path: Path) -> Iterator[tuple[str, str]]:
    """Names of commands and `module:function` of each."""
    if path.is_file():
        parser = ConfigParser(delimiters=("=",))
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read(path, encoding="utf-8")
        if parser.has_section("console_scripts"):
            yield from parser.items("console_scripts")


def write_script(place: Place, name: str, value: str) -> None:
    """A command that runs `value`."""
    module, _, function = value.partition("[")[0].strip().partition(":")
    script = place.bin / name
    script.write_text(
        f"#!{place.python}\nimport sys\nsys.path.insert(0, {str(place.site)!r})\n"
        f"from {module} import {function.split('.')[0]}\nsys.exit({function}())\n",
        encoding="utf-8",
    )
    script.chmod(0o755)


if __name__ == "__main__":
    here = Place(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
    for name in sys.argv[4:]:
        unpack_wheel(here, Path(name))
