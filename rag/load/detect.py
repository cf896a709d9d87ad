"""What a file is: by its bytes, then by its name, then by what its source says."""

from __future__ import annotations

import io
import re
import zipfile
from typing import Literal

from rag.load.build import name_of
from rag.protocols import RawFile

__all__ = ["EXTENSIONS", "WIKI_PAGE", "Kind", "detect"]

Kind = Literal["pdf", "html", "markdown", "docx", "pptx", "xlsx", "csv", "jsonl", "json", "mail",
               "code", "text", "confluence", "wiki", "unsupported"]  # fmt: skip

_CODE = (
    "py pyi js mjs cjs ts tsx jsx java kt kts scala go rs c h cc cpp cxx hpp cs swift rb php pl pm "
    "lua r jl sh bash zsh ps1 sql yaml yml toml ini cfg conf tf proto graphql gradle cmake make mk "
    "dockerfile css scss vue svelte ex exs erl hs clj dart m mm f90 zig nix"
)
EXTENSIONS: dict[str, Kind] = {
    "pdf": "pdf",
    "html": "html",
    "htm": "html",
    "xhtml": "html",
    "md": "markdown",
    "markdown": "markdown",
    "mdx": "markdown",
    "docx": "docx",
    "pptx": "pptx",
    "xlsx": "xlsx",
    "csv": "csv",
    "tsv": "csv",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "json": "json",
    "eml": "mail",
    "txt": "text",
    "text": "text",
    "rst": "text",
    "log": "text",
    "tex": "text",
    **dict.fromkeys(_CODE.split(), "code"),
}
"""Files with other names are read from a folder only if they are named themselves."""
_TYPES: dict[str, Kind] = {
    "application/pdf": "pdf",
    "text/html": "html",
    "application/xhtml+xml": "html",
    "text/markdown": "markdown",
    "text/csv": "csv",
    "text/tab-separated-values": "csv",
    "application/jsonl": "jsonl",
    "application/x-ndjson": "jsonl",
    "application/json": "json",
    "message/rfc822": "mail",
}
WIKI_PAGE = "application/vnd.confluence.page+html"
"""The type that `rag.load.confluence` gives to its pages."""
_HTML = re.compile(
    rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html[\s>])", re.I
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_PACKED = (_OLE, b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ",
           b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"\x7fELF", b"MZ")  # fmt: skip


def detect(raw: RawFile) -> Kind:
    """The kind of `raw`; bytes win over a wrong extension."""
    data = raw.data
    if raw.media_type == WIKI_PAGE:
        return "wiki"
    if data.lstrip()[:5] == b"%PDF-" or b"%PDF-" in data[:1024]:
        return "pdf"
    if data[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _zip(data)
    if data.startswith(_PACKED):
        return "unsupported"
    named = _by_name(raw.uri) or _TYPES.get(raw.media_type.partition(";")[0].strip().lower())
    if named in ("pdf", "docx", "pptx", "xlsx"):
        return "text"
    if named in (None, "text") and _HTML.match(data[:2048]):
        return "html"
    return named or "text"


def _by_name(uri: str) -> Kind | None:
    name = name_of(uri).lower()
    return EXTENSIONS.get(name.rpartition(".")[2])


def _zip(data: bytes) -> Kind:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return "unsupported"
    marks: tuple[tuple[str, Kind], ...] = (
        ("word/document.xml", "docx"),
        ("ppt/presentation.xml", "pptx"),
        ("xl/workbook.xml", "xlsx"),
        ("entities.xml", "confluence"),
    )
    return next((kind for name, kind in marks if name in names), "unsupported")
