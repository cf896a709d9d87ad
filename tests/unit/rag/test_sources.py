"""Folders, globs and URLs list what may be read, and nothing beyond."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest

from rag.errors import Refused, SourceUnreadable
from rag.load.config import LoadConfig
from rag.load.source import open_source


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    for name in ("a.md", "sub/b.txt", "sub/c.bin", ".hidden/d.md", ".e.md"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def names(path: Path | str, **config: object) -> list[str]:
    source = open_source(str(path), LoadConfig.model_validate(config))
    return [os.path.basename(entry.uri) for entry in source.entries()]


def test_a_folder_has_the_files_of_known_formats(docs: Path) -> None:
    assert names(docs) == ["a.md", "b.txt"]
    assert names(docs, hidden=True) == [".e.md", "a.md", "d.md", "b.txt"]


def test_a_file_that_is_named_is_read_whatever_it_is(docs: Path) -> None:
    (entry,) = open_source(str(docs / "sub/c.bin"), LoadConfig()).entries()
    assert entry.read().data == b"sub/c.bin"


def test_globs(docs: Path) -> None:
    assert names(docs / "**" / "*.txt") == ["b.txt"]
    assert names(docs / "*.pdf") == []


def test_what_does_not_exist_is_an_error(docs: Path) -> None:
    with pytest.raises(SourceUnreadable, match="there is no"):
        names(docs / "none.md")


def test_links_are_followed_only_when_asked_and_never_outside(docs: Path) -> None:
    outside = docs.parent / "secret.md"
    outside.write_text("secret")
    (docs / "out.md").symlink_to(outside)
    (docs / "in.md").symlink_to(docs / "a.md")
    (docs / "loop").symlink_to(docs)
    assert names(docs) == ["a.md", "b.txt"]
    assert names(docs, follow_symlinks=True) == ["a.md", "in.md", "b.txt"]


def test_what_is_no_regular_file_is_refused(docs: Path) -> None:
    os.mkfifo(docs / "pipe.md")
    assert names(docs) == ["a.md", "b.txt"]
    (entry,) = open_source(str(docs / "pipe.md"), LoadConfig()).entries()
    with pytest.raises(Refused, match="no regular file"):
        entry.read()


def test_large_files_are_refused_unread(docs: Path) -> None:
    with (docs / "a.md").open("wb") as file:
        file.truncate(2 << 20)
    (entry,) = open_source(str(docs / "a.md"), LoadConfig(max_file_mib=1)).entries()
    with pytest.raises(Refused, match="max_file_mib"):
        entry.read()


def test_names_that_are_no_unicode_are_read(docs: Path) -> None:
    with open(os.fsencode(docs) + b"/\xff.md", "w") as file:
        file.write("odd")
    found = [entry.read().data for entry in open_source(str(docs), LoadConfig()).entries()]
    assert b"odd" in found


def test_objects_by_url() -> None:
    system = fsspec.filesystem("memory")
    system.pipe(
        {"/bucket/docs/a.md": b"# A", "/bucket/docs/deep/b.txt": b"B", "/bucket/c.md": b"C"}
    )
    assert names("memory://bucket/docs") == ["a.md", "b.txt"]
    assert names("memory://bucket/docs/a.md") == ["a.md"]
    assert names("memory://bucket/**/*.txt") == ["b.txt"]
    (entry, _) = open_source("memory://bucket/docs", LoadConfig()).entries()
    assert entry.read().data == b"# A"
    assert entry.uri == "memory:///bucket/docs/a.md"
    with pytest.raises(SourceUnreadable, match="nothing"):
        names("memory://bucket/none")


@pytest.mark.parametrize(
    "url", ["ssh://host/x", "simplecache::memory://x", "data://x", "github://a:b@/"]
)
def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(Refused, match="schemes"):
        names(url)
