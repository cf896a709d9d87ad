"""`python -m rag` ingests, reports and removes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import documents

ROOT = Path(__file__).parents[3]


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "manual.pdf").write_bytes(documents.pdf())
    (folder / "pumps.md").write_text("# Pumps\n\nThe north loop has three pumps.\n")
    (folder / "broken.docx").write_bytes(b"PK\x03\x04 broken")
    return folder


def rag(home: Path, *args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rag", args[0], "--config", "fake", *args[1:]]
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "CORRAL_HOME": str(home / "home")},
    )


def test_a_folder_becomes_a_knowledge_base(tmp_path: Path, docs: Path) -> None:
    first = rag(tmp_path, "ingest", docs)
    assert first.returncode == 1, first.stderr
    assert "3 files (0 unchanged, 1 failed, 0 removed), 3 chunks stored" in first.stdout
    assert "broken.docx" in first.stderr
    status = rag(tmp_path, "status", "--json")
    rows = {Path(row["uri"]).name: row for row in map(json.loads, status.stdout.splitlines())}
    assert {name: row["state"] for name, row in rows.items()} == {
        "broken.docx": "failed",
        "manual.pdf": "done",
        "pumps.md": "done",
    }
    (docs / "broken.docx").unlink()
    second = rag(tmp_path, "ingest", docs)
    assert second.returncode == 0, second.stderr
    assert "2 files (2 unchanged, 0 failed, 1 removed), 0 chunks stored" in second.stdout
    removed = rag(tmp_path, "remove", rows["pumps.md"]["uri"])
    assert removed.returncode == 0, removed.stderr
    assert "1 files, 2 chunks" in rag(tmp_path, "status").stdout


def test_show_prints_chunks_with_their_place(tmp_path: Path, docs: Path) -> None:
    shown = rag(tmp_path, "show", docs / "manual.pdf")
    assert "[1] " in shown.stdout
    assert "page 2\nReactor manual > Fuel\nNatural uranium" in shown.stdout


def test_another_embedder_is_refused(tmp_path: Path, docs: Path) -> None:
    rag(tmp_path, "ingest", docs)
    other = rag(tmp_path, "ingest", "--set", "embed.dimension=32", docs)
    assert other.returncode == 2
    assert "dimension" in other.stderr


def test_a_path_that_is_not_there_stops_no_other(tmp_path: Path, docs: Path) -> None:
    found = rag(tmp_path, "ingest", docs / "none.md", docs / "pumps.md")
    assert found.returncode == 1
    assert "there is no" in found.stderr
    assert "1 files" in found.stdout
