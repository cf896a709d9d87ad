"""Ingestion: what changes costs work, what does not costs a hash, and a kill loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from rag.embed.config import FakeEmbedConfig
from rag.embed.fake import FakeEmbedder
from rag.errors import EmbedderUnavailable, LedgerBusy
from rag.ingest.config import IngestConfig
from rag.ingest.ledger import Ledger
from rag.ingest.memory import MemoryIndex
from rag.ingest.pipeline import Ingestor
from rag.ingest.progress import Progress
from rag.load.config import LoadConfig
from rag.load.parse import parse
from rag.load.source import open_source
from rag.protocols import EmbedKind, RawFile
from rag.split.config import SplitConfig
from rag.split.splitter import Splitter
from rag.types import Chunk, Document, Query, Scope, Vectors

SCOPE = Scope("tenant", "store")


class InProcess:
    """A parser without child processes."""

    size = 2

    def parse(self, raw: RawFile) -> Sequence[Document]:
        return parse(raw)


class CountingEmbedder(FakeEmbedder):
    """Remembers how many texts it embedded, and fails when told to."""

    def __init__(self) -> None:
        super().__init__(FakeEmbedConfig(max_tokens=32))
        self.embedded = 0
        self.fail_after: int | None = None

    def encode(self, texts: Sequence[str], kind: EmbedKind = "document") -> Vectors:
        if self.fail_after is not None and self.embedded + len(texts) > self.fail_after:
            raise EmbedderUnavailable("the embedder is gone")
        self.embedded += len(texts)
        return super().encode(texts, kind)


class Base:
    """A knowledge base in a folder of the test's."""

    def __init__(self, folder: Path, split: SplitConfig | None = None) -> None:
        self.folder = folder
        self.docs = folder / "docs"
        self.docs.mkdir()
        self.index = MemoryIndex()
        self.embedder = CountingEmbedder()
        self.split = split or SplitConfig()
        self.faults: list[str] = []

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.docs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def ingest(self, *paths: str | Path, **config: int | bool) -> Progress:
        sources = [open_source(str(path), LoadConfig()) for path in paths or (self.docs,)]
        with Ledger(self.folder / "ledger.db", SCOPE) as ledger:
            ingestor = Ingestor(
                self.index,
                self.embedder,
                ledger,
                InProcess(),
                Splitter(self.split, self.embedder),
                SCOPE,
                IngestConfig.model_validate(config),
            )
            progress = ingestor.run(sources)
            self.faults = [str(fault) for fault in ingestor.faults]
            assert ledger.live_ids() == set(self.index.ids(SCOPE))
        return progress

    def texts(self) -> set[str]:
        found = self.index.get(SCOPE, list(self.index.ids(SCOPE)))
        return {chunk.text for chunk in found if not chunk.is_parent}


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return Base(tmp_path)


def paragraphs(count: int, word: str = "word") -> str:
    return "\n\n".join(" ".join([f"{word}{number}"] * 20) for number in range(count))


def test_what_was_ingested_is_found(base: Base) -> None:
    base.write("a.md", "# Pumps\n\nThe north loop has three pumps.")
    base.write("sub/b.txt", "Uranium is loaded on power.")
    progress = base.ingest()
    assert (progress.files_done, progress.chunks, progress.failed) == (2, 2, 0)
    vector = base.embedder.encode(["three pumps north loop"], "query")[0]
    best = base.index.search(SCOPE, Query(vector=vector))[0].chunk
    assert best.uri == str(base.docs / "a.md")
    assert best.heading_path == ("Pumps",)


def test_unchanged_files_are_not_embedded_again(base: Base) -> None:
    base.write("a.txt", paragraphs(5))
    first = base.ingest()
    embedded = base.embedder.embedded
    second = base.ingest()
    assert first.chunks == embedded > 1
    assert (second.unchanged, second.chunks, base.embedder.embedded) == (1, 0, embedded)


def test_a_changed_file_replaces_exactly_its_chunks(base: Base) -> None:
    base.write("a.txt", paragraphs(3))
    base.write("b.txt", paragraphs(3, "other"))
    base.ingest()
    before = base.texts()
    base.write("a.txt", paragraphs(2) + "\n\n" + " ".join(["new"] * 20))
    progress = base.ingest()
    gone, come = before - base.texts(), base.texts() - before
    assert (len(gone), len(come)) == (1, 1)
    assert "word2" in gone.pop()
    assert come.pop() == " ".join(["new"] * 20)
    assert (progress.chunks, progress.chunks_kept) == (1, 2)


def test_a_deleted_file_disappears(base: Base) -> None:
    path = base.write("a.txt", "Going.")
    base.write("b.txt", "Staying.")
    base.ingest()
    path.unlink()
    assert base.ingest(remove_missing=False).removed == 0
    assert base.texts() == {"Going.", "Staying."}
    assert base.ingest().removed == 1
    assert base.texts() == {"Staying."}


def test_ingesting_one_folder_leaves_the_others_alone(base: Base) -> None:
    base.write("one/a.txt", "One.")
    base.write("two/b.txt", "Two.")
    base.ingest(base.docs / "one")
    base.ingest(base.docs / "two")
    assert base.texts() == {"One.", "Two."}


def test_a_folder_that_cannot_be_listed_removes_nothing(base: Base) -> None:
    base.write("a.txt", "Here.")
    base.ingest()
    base.docs.rename(base.folder / "elsewhere")
    assert base.ingest().removed == 0
    assert "there is no" in base.faults[0]
    assert base.texts() == {"Here."}


def test_a_file_that_cannot_be_parsed_stops_no_other(base: Base) -> None:
    base.write("bad.pdf", b"%PDF-1.7 nothing more")
    base.write("good.txt", "Good.")
    progress = base.ingest()
    assert (progress.files_done, progress.failed) == (2, 1)
    assert base.texts() == {"Good."}
    with Ledger(base.folder / "ledger.db", SCOPE) as ledger:
        (row,) = ledger.files("failed")
    assert row.uri.endswith("bad.pdf")
    assert "PDF" in row.error


def test_a_failed_file_is_parsed_again_only_when_asked_or_changed(base: Base) -> None:
    base.write("bad.pdf", b"%PDF-1.7 nothing more")
    base.ingest()
    assert base.ingest().unchanged == 1
    assert base.ingest(retry_failed=True).unchanged == 0
    base.write("bad.pdf", b"Now it is text.")
    assert base.ingest().failed == 0
    assert base.texts() == {"Now it is text."}


def test_another_chunking_replaces_everything(base: Base) -> None:
    base.write("a.txt", paragraphs(4))
    base.ingest()
    before = base.texts()
    base.split = SplitConfig(by="token", max_tokens=10)
    base.ingest()
    assert base.texts().isdisjoint(before)
    assert len(list(base.index.ids(SCOPE))) == 8


def test_an_empty_file_has_no_chunks_and_is_done(base: Base) -> None:
    base.write("a.txt", "")
    assert base.ingest().failed == 0
    assert base.ingest().unchanged == 1


def test_parents_are_stored_beside_their_chunks(tmp_path: Path) -> None:
    base = Base(tmp_path, SplitConfig(max_tokens=12, parent_tokens=30))
    base.write("a.txt", paragraphs(4))
    base.ingest()
    chunks = base.index.get(SCOPE, list(base.index.ids(SCOPE)))
    parents = {chunk.id: chunk for chunk in chunks if chunk.is_parent}
    children = [chunk for chunk in chunks if not chunk.is_parent]
    assert len(children) > len(parents) > 1
    assert all(chunk.text in parents[chunk.parent_id or ""].text for chunk in children)


def test_a_run_that_fails_in_the_middle_is_completed_by_the_next(base: Base) -> None:
    for number in range(20):
        base.write(f"{number}.txt", paragraphs(3, f"file{number}x"))
    base.embedder.fail_after = 30
    with pytest.raises(EmbedderUnavailable):
        base.ingest(batch_chunks=4)
    with Ledger(base.folder / "ledger.db", SCOPE) as ledger:
        assert ledger.live_ids() <= set(base.index.ids(SCOPE))
    base.embedder.fail_after = None
    base.ingest(batch_chunks=4)
    assert len(base.texts()) == 60


def test_two_runs_at_once_are_refused(base: Base) -> None:
    with (
        Ledger(base.folder / "ledger.db", SCOPE),
        pytest.raises(LedgerBusy, match="another process"),
    ):
        base.ingest()


def test_scopes_of_one_ledger_do_not_see_each_other(base: Base) -> None:
    base.write("a.txt", "Mine.")
    base.ingest()
    with Ledger(base.folder / "ledger.db", Scope("someone", "else")) as ledger:
        assert list(ledger.files()) == []
        assert ledger.live_ids() == set()


class FolderIndex(MemoryIndex):
    """Keeps each chunk in a file, so that it outlives a kill; slow on purpose."""

    def __init__(self, folder: Path, pause_s: float) -> None:
        super().__init__()
        self._folder, self._pause_s = folder, pause_s
        folder.mkdir(exist_ok=True)

    def upsert(self, scope: Scope, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        for chunk in chunks:
            time.sleep(self._pause_s)
            (self._folder / chunk.id).write_text(chunk.text)

    def delete(self, scope: Scope, chunk_ids: Collection[str]) -> None:
        for one in chunk_ids:
            (self._folder / one).unlink(missing_ok=True)


def child(folder: Path) -> None:
    """What the killed process runs."""
    embedder = FakeEmbedder(FakeEmbedConfig(max_tokens=32))
    with Ledger(folder / "ledger.db", SCOPE) as ledger:
        Ingestor(
            FolderIndex(folder / "index", 0.002),
            embedder,
            ledger,
            InProcess(),
            Splitter(SplitConfig(), embedder),
            SCOPE,
            IngestConfig(batch_chunks=8),
        ).run([open_source(str(folder / "docs"), LoadConfig())])


def test_a_kill_loses_no_acknowledged_chunk_and_doubles_none(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for number in range(40):
        (docs / f"{number}.txt").write_text(paragraphs(5, f"file{number}x"))
    for kill in range(4):
        process = _start(tmp_path)
        _wait_for(tmp_path / "index", 20 + 40 * kill, process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with Ledger(tmp_path / "ledger.db", SCOPE) as ledger:
            stored = {path.name for path in (tmp_path / "index").iterdir()}
            assert ledger.live_ids() <= stored
        for number in range(kill, 40, 7):
            (docs / f"{number}.txt").write_text(paragraphs(4, f"file{number}k{kill}x"))
        (docs / f"{10 + kill}.txt").unlink()
    process = _start(tmp_path)
    assert process.wait(60) == 0
    found = sorted(path.read_text() for path in (tmp_path / "index").iterdir())
    wanted = sorted(text for path in docs.iterdir() for text in path.read_text().split("\n\n"))
    assert found == wanted


def _start(folder: Path) -> subprocess.Popen[bytes]:
    code = (
        "import sys, importlib.util, pathlib;"
        f"sys.path.insert(0, {str(Path(__file__).parents[3])!r});"
        f"spec = importlib.util.spec_from_file_location('child', {__file__!r});"
        "module = importlib.util.module_from_spec(spec);"
        "sys.modules['child'] = module;"
        "spec.loader.exec_module(module); module.child(pathlib.Path(sys.argv[1]))"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(folder)])


def _wait_for(index: Path, chunks: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if index.is_dir() and len(list(index.iterdir())) >= chunks:
            return
        time.sleep(0.005)
    raise AssertionError("the child ended before it was killed")
