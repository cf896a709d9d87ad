"""What a running stack is told besides its configuration: places, weights and the admin key."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from serving.home import Home
from serving.store.secret import new_key


@dataclass(frozen=True)
class Runtime:
    """Passed to every deployment."""

    home: Home
    directory: Path
    """Sockets and state of the running stack. Short: a socket's path has at most 107 bytes."""
    admin_key: str = field(repr=False)
    weights: dict[str, str] = field(default_factory=dict)
    """Prepared model directory by model name."""
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Other names of a model's weights, under which adapters may know their base."""


def runtime_directory(home: Home) -> Path:
    """One directory per user and `$CORRAL_HOME`, readable by this user only."""
    digest = hashlib.sha256(str(home.root).encode()).hexdigest()[:10]
    return Path(tempfile.gettempdir()) / f"corral-{os.getuid()}-{digest}"


def create_runtime_directory(home: Home) -> Path:
    """Make the directory. Raises PermissionError when somebody else owns it."""
    directory = runtime_directory(home)
    directory.mkdir(mode=0o700, exist_ok=True)
    info = directory.lstat()
    if info.st_uid != os.getuid() or directory.is_symlink() or info.st_mode & 0o077:
        raise PermissionError(f"{directory} is not private to this user; remove it")
    return directory


def admin_key(home: Home) -> str:
    """The key of the admin routes: read from `$CORRAL_HOME/credentials`, made on first use."""
    path = home.root / "credentials"
    key = read_admin_key(home)
    if key is None:
        home.root.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "a", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            key = new_key()
            # The line before may have been typed without an end.
            file.write(f"{chr(10) if file.tell() else ''}admin_key: {key}\n")
        key = read_admin_key(home) or key  # of two starts at once the first line counts
    return key


def read_admin_key(home: Home) -> str | None:
    """The key in `$CORRAL_HOME/credentials`; None before the first start."""
    try:
        lines = (home.root / "credentials").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    pairs = (line.partition(":") for line in lines)
    keys = (value.strip() for name, _, value in pairs if name.strip() == "admin_key")
    return next((key for key in keys if key), None)
