"""What a bundle says that it was packed from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from serving.pack.project import revision


def git(root: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    done = subprocess.run(
        ["git", *identity, *words], cwd=root, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("1")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_revision_is_the_commit_and_says_when_files_differ(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert revision(checkout) == commit
    (checkout / "file").write_text("2")
    assert revision(checkout) == f"{commit}-modified"


def test_copy_without_history_is_believed(tmp_path: Path) -> None:
    root = tmp_path / "copy"
    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
        assert revision(root) is None
        (root / "REVISION").write_text("abc\n")
        assert revision(root) == "abc"
