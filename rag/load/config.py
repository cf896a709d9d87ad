"""How documents are read, and the limits that parsing has."""

from __future__ import annotations

from pydantic import Field

from configs import StrictModel

__all__ = ["LoadConfig"]


class LoadConfig(StrictModel):
    """Limits of one document."""

    max_file_mib: int = Field(64, ge=1)
    """A larger file is refused before it is read."""
    max_text_mib: int = Field(32, ge=1)
    """Text that a parser may produce of one file."""
    timeout_s: float = Field(30.0, gt=0)
    """Longest that parsing one file may take; its worker is then killed."""
    memory_mib: int = Field(1024, ge=128)
    """Address space a parsing worker may use beyond what it begins with."""
    workers: int = Field(0, ge=0)
    """Parsing processes; 0 is one fewer than the CPU's cores, at least one."""
    follow_symlinks: bool = False
    """Whether links inside a folder are followed. Links that leave the folder never are."""
    hidden: bool = False
    """Whether files and folders whose names begin with a dot are read."""
