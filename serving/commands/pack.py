"""`corral pack`: options to a plan, and a bundle's sizes as a table."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from serving.home import Home
from serving.pack.bundle import Plan
from serving.pack.bundle import pack as make_bundle
from serving.pack.errors import PackError
from serving.pack.host import read_host_packages
from serving.pack.manifest import Manifest
from serving.pack.summary import write_summary
from serving.pack.target import Target

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}
SHOWN = 15
THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
Names = list[str] | None


def pack(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="An empty directory.")],
    target: Annotated[Literal["cpu", "gpu"], typer.Option(help="Which lock.")],
    python: Annotated[str, typer.Option(help="Python of the host.")] = THIS_PYTHON,
    platform: Annotated[
        str, typer.Option(help="Oldest C library to fit: manylinux_2_28_x86_64 is glibc 2.28.")
    ] = "manylinux_2_35_x86_64",
    torch_from_host: Annotated[
        bool, typer.Option(help="Leave out torch and what else the host has.")
    ] = False,
    host_packages: Annotated[
        Path | None, typer.Option(help="`pip list --format=json` (or freeze) of the host.")
    ] = None,
    arch: Annotated[
        str | None, typer.Option(help="Keep kernels of this GPU architecture only: sm_90.")
    ] = None,
    without: Annotated[Names, typer.Option(help="Leave out a package. Repeatable.")] = None,
    with_: Annotated[Names, typer.Option("--with", help="Pack it although unused.")] = None,
    models: Annotated[Names, typer.Option(help="A built-in or prepared model.")] = None,
    adapters: Annotated[Names, typer.Option(help="An adapter, all its versions.")] = None,
    split: Annotated[str, typer.Option(help="Largest part: 60MB, 512MiB.")] = "60MB",
    compress: Annotated[Literal["xz", "zstd", "none"], typer.Option(help="How.")] = "xz",
    compress_level: Annotated[int, typer.Option(min=0, max=9, help="xz or zstd level.")] = 6,
    cache: Annotated[
        Path | None, typer.Option(help="Fetched wheels; default: CORRAL_HOME/cache/wheels.")
    ] = None,
    summary: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the sizes there, as JSON.")
    ] = None,
) -> None:
    """Pack everything a machine without a network needs, in parts, with an installer."""
    if torch_from_host != (host_packages is not None):
        raise PackError(
            "--torch-from-host and --host-packages belong together; make the list on the host: "
            "`python3 -m pip list --format=json > host.json`"
        )
    plan = Plan(
        kind=target,
        target=Target(python, platform),
        host=read_host_packages(host_packages) if host_packages else None,
        arch=arch,
        without=frozenset(without or ()),
        with_=frozenset(with_ or ()),
        models=tuple(models or ()),
        adapters=tuple(adapters or ()),
        compression=compress,
        level=compress_level,
        part_bytes=parse_size(split),
    )
    home = Home.from_env()
    log = Console(stderr=True)
    manifest = make_bundle(
        plan,
        out,
        home,
        cache or home.root / "cache" / "wheels",
        lambda line: log.print(line, style="dim", highlight=False, markup=False),
    )
    render(manifest, out, Console())
    if summary is not None:
        words = ["OUT" if word == str(out) else word for word in sys.argv[1:]]
        write_summary(manifest, words, summary)


def parse_size(text: str) -> int:
    """ "60MB" or "512MiB" in bytes. Raises PackError."""
    found = re.fullmatch(r"(\d+) *([KMG]?I?)B?", text.strip().upper())
    if not found or not int(found[1]) or found[2] not in UNITS:
        raise PackError(f"--split {text!r} is no size such as 60MB or 512MiB")
    return int(found[1]) * UNITS[found[2]]


def render(manifest: Manifest, out: Path, console: Console) -> None:
    """What takes the space, what was left out, and the parts."""
    packages = Table("package", "version", "wheel MB", "packed MB", "trimmed", box=None)
    ordered = sorted(manifest.packages, key=lambda p: p.packed_bytes or p.origin_bytes)[::-1]
    for package in ordered[:SHOWN]:
        trimmed = [entry.reason for entry in package.removed]
        trimmed += ["kernels for other GPUs"] if package.blanked_bytes else []
        packages.add_row(
            package.name,
            package.version,
            _mb(package.origin_bytes),
            "" if package.packed_bytes is None else _mb(package.packed_bytes),
            "; ".join(trimmed),
        )
    rest = ordered[SHOWN:]
    packages.add_row(
        f"{len(rest)} more",
        "",
        _mb(sum(package.origin_bytes for package in rest)),
        _mb(sum(package.packed_bytes or 0 for package in rest)),
    )
    console.print(packages)
    for title, names in (
        ("left out", manifest.omitted),
        ("left to the host", manifest.on_host),
        ("in place of the host's", manifest.replaces),
    ):
        if names:
            console.print(f"{title}: {', '.join(names)}", highlight=False, markup=False)
    parts = Table("part", "MB", "sha256", box=None)
    for part in manifest.parts:
        parts.add_row(part.name, _mb(part.size), part.sha256[:16])
    parts.add_row(f"{len(manifest.parts)} parts", _mb(manifest.total_bytes))
    console.print(parts)
    console.print(f"on the host: {out}/install.sh", highlight=False, markup=False)


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f}"
