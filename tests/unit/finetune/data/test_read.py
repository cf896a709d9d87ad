"""Rows of files, and files that hold none."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import pytest

from finetune.config import FileSource, HubSource
from finetune.data.read import read, read_jsonl
from finetune.errors import MissingExtra, SourceUnreadable

HAS_PYARROW = importlib.util.find_spec("pyarrow") is not None


def _rows(path: Path) -> list[tuple[int, object, str]]:
    rows = read(FileSource(path=str(path)), max_row_mib=1)
    return [(row.number, row.value, row.fault) for row in rows]


def test_rows_have_the_numbers_of_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n  \n{"a": "\xc3\xa9"}')
    assert _rows(path) == [(1, {"a": 1}, ""), (4, {"a": "é"}, "")]


def test_an_over_long_line_is_not_held(tmp_path: Path) -> None:
    class Counting(io.BytesIO):
        largest = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            line = super().readline(-1 if size is None else size)
            self.largest = max(self.largest, len(line))
            return line

    file = Counting(b'"' + b"x" * (5 << 20) + b'"\n{}\n')
    rows = list(read_jsonl(file, "x", 1000))
    assert [(row.number, bool(row.fault)) for row in rows] == [(1, True), (2, False)]
    assert file.largest <= 1 << 20


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[\n{}\n]", "is one JSON array, not JSON Lines: convert it with `jq -c"),
        (b'{\n"messages": []\n}', "holds JSON over several lines"),
        (b"\x1f\x8b\x08rest", r"is compressed \(gzip\): unpack it first"),
        (b"PK\x03\x04rest", r"is compressed \(ZIP\)"),
        ("{}".encode("utf-16"), "is UTF-16 text: save it as UTF-8"),
    ],
)
def test_what_is_no_jsonl_at_all_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(data)
    with pytest.raises(SourceUnreadable, match=words):
        _rows(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match=r"none\.jsonl: No such file"):
        _rows(tmp_path / "none.jsonl")
    with pytest.raises(SourceUnreadable, match="Is a directory"):
        _rows(tmp_path)


@pytest.mark.skipif(HAS_PYARROW, reason="pyarrow is installed")
def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(MissingExtra, match=r"needs pyarrow: pip install 'corral\[finetune\]'"):
        _rows(path)


@pytest.mark.skipif(
    importlib.util.find_spec("datasets") is not None, reason="datasets is installed"
)
def test_a_hub_data_set_without_datasets_names_the_extra() -> None:
    with pytest.raises(MissingExtra, match=r"owner/set\[train\] is a Hub data set"):
        list(read(HubSource(name="owner/set"), max_row_mib=1))


@pytest.mark.skipif(not HAS_PYARROW, reason="needs pyarrow")
def test_parquet_rows_are_read_in_order(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "x.data"  # told by its bytes
    rows = [{"messages": [{"role": "user", "content": str(i)}]} for i in range(600)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert _rows(path) == [(i + 1, row, "") for i, row in enumerate(rows)]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SourceUnreadable, match="is no readable Parquet file"):
        _rows(path)


@pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="needs datasets")
def test_a_data_set_in_the_hubs_layout_is_read_by_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"a": 1}\n{"a": 2}\n{"a": 3}\n')
    (folder / "test.jsonl").write_text('{"a": 9}\n')
    for split, values in (("train", [1, 2, 3]), ("train[:2]", [1, 2]), ("test", [9])):
        rows = list(read(HubSource(name=str(folder), split=split), max_row_mib=1))
        assert [(row.number, row.value) for row in rows] == [
            (number, {"a": value}) for number, value in enumerate(values, start=1)
        ]
    with pytest.raises(SourceUnreadable, match="cannot read the data set"):
        list(read(HubSource(name=str(folder), split="none"), max_row_mib=1))
