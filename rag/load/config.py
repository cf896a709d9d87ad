"""How documents are read, and the limits that parsing has."""

from __future__ import annotations

from pydantic import Field

from configs import StrictModel

__all__ = ["ConfluenceConfig", "LoadConfig", "WebConfig"]


class WebConfig(StrictModel):
    """What may be fetched."""

    timeout_s: float = Field(30.0, gt=0)
    """Of a whole fetch, redirects included."""
    max_mib: int = Field(32, ge=1)
    """Of a body."""
    max_redirects: int = Field(5, ge=0)
    """Each one is checked as the first address is."""
    ports: tuple[int, ...] = (80, 443)
    """Ports that may be connected to."""
    allow_networks: tuple[str, ...] = ()
    """Networks (`10.1.0.0/16`) that may be reached although their addresses are not public."""
    media_types: tuple[str, ...] = (
        "text/",
        "application/pdf",
        "application/xhtml+xml",
        "application/json",
        "application/vnd.openxmlformats-officedocument.",
    )
    """Beginnings of the types that are read; a response without a type is read too."""
    user_agent: str = "corral"
    """How requests call themselves."""


class ConfluenceConfig(StrictModel):
    """How a Confluence site is read."""

    token_env: str = "CONFLUENCE_TOKEN"
    """The environment variable with the token: `name@example.com:TOKEN`, or a bare token."""


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
    schemes: tuple[str, ...] = ("s3", "gs", "gcs", "abfs", "az", "memory")
    """fsspec schemes that may be read."""
    web: WebConfig = WebConfig()
    confluence: ConfluenceConfig = ConfluenceConfig()
