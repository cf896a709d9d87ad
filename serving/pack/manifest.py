"""`manifest.json`: what is in a bundle, where it came from, and what was left out.

install.py reads it without pydantic: a change that it would notice raises SCHEMA.
"""

from __future__ import annotations

from typing import Literal

from configs import StrictModel

SCHEMA = 1
NAME = "manifest.json"


class Removed(StrictModel):
    """Files that were taken out of a wheel."""

    reason: str
    files: int
    bytes: int


class PackageRecord(StrictModel):
    """One wheel. Sizes in bytes, digests SHA-256 in hexadecimal."""

    name: str
    version: str
    file: str
    origin_sha256: str
    """Of the wheel as published and as the lock pins it."""
    origin_bytes: int
    removed: list[Removed] = []
    blanked_bytes: int = 0
    """Kernels of other GPU architectures, now zeros."""
    untouched: dict[str, str] = {}
    """Libraries whose kernels could not be told apart."""
    packed_bytes: int | None = None
    """Its share of the parts; None where the compression does not tell."""


class FileRecord(StrictModel):
    """One file of the archive, by its path there."""

    path: str
    size: int
    sha256: str


class PartRecord(StrictModel):
    """One part beside the manifest."""

    name: str
    size: int
    sha256: str


class Manifest(StrictModel):
    """The whole bundle."""

    schema_version: int = SCHEMA
    corral: str
    revision: str | None = None
    """Of the checkout that it was packed from."""
    target: Literal["cpu", "gpu"]
    python: str
    platform: str
    arch: str | None
    torch_from_host: bool
    lock: str
    compression: Literal["xz", "zstd", "none"]
    packages: list[PackageRecord]
    omitted: dict[str, str]
    """Required by some package, and why it was left out."""
    on_host: dict[str, str]
    """Left to the host, with the version that it had."""
    replaces: dict[str, str]
    """In the bundle although the host has it, in the version named here."""
    imports: list[str]
    """Modules that must import after the installation."""
    config: str
    """What `corral doctor` looks at."""
    models: list[str]
    adapters: list[str]
    files: list[FileRecord]
    parts: list[PartRecord]
    total_bytes: int
