"""Trimmed wheels: what goes, what stays, and a RECORD that is true."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

from serving.pack.cache import open_wheel
from serving.pack.trim import Rule, trim_wheel
from tests.unit.pack.wheels import CUBIN_75, CUBIN_90, library, make_wheel, record_digest

HOPPER_ONLY = Rule("demo", r"demo/old\..*", "old kernels", (90,))
ALWAYS = Rule("demo", r"demo/pages/.*", "pages")


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        return {name: archive.read(name) for name in archive.namelist()}


def make(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    return make_wheel(
        tmp_path / "in",
        "demo",
        {
            "demo/__init__.py": b"x = 1\n",
            "demo/kernels.so": library([[CUBIN_75, CUBIN_90]]),
            "demo/odd.so": b".nv_fatbin, but no ELF file",
            "demo/old.so": b"old",
            "demo/pages/index.html": b"<p>",
            "demo/__pycache__/x.pyc": b"?",
        },
    )


def test_rules_and_kernels_for_one_architecture(tmp_path: Path) -> None:
    wheel = open_wheel(make(tmp_path))
    path, trim = trim_wheel(
        wheel, tmp_path / "out", arch=90, python="3.12", rules=(HOPPER_ONLY, ALWAYS)
    )
    files = contents(path)
    assert {name for name in files if name.startswith("demo/")} == {
        "demo/__init__.py", "demo/kernels.so", "demo/odd.so",
    }  # fmt: skip
    assert set(trim.removed) == {"old kernels", "pages", "bytecode"}
    assert trim.removed["old kernels"] == [1, 3]
    assert CUBIN_75.payload not in files["demo/kernels.so"]
    assert CUBIN_90.payload in files["demo/kernels.so"]
    assert trim.blanked == {"demo/kernels.so": len(CUBIN_75.payload)}
    assert files["demo/odd.so"] == b".nv_fatbin, but no ELF file"
    assert set(trim.untouched) == {"demo/odd.so"}


def test_record_names_every_file_with_its_digest(tmp_path: Path) -> None:
    path, _ = trim_wheel(
        open_wheel(make(tmp_path)),
        tmp_path / "out",
        arch=90,
        python="3.12",
        added={"REVISION": b"abc\n"},
    )
    assert contents(path)["REVISION"] == b"abc\n"
    files = contents(path)
    rows = list(csv.reader(io.StringIO(files["demo-1.0.dist-info/RECORD"].decode())))
    assert {row[0] for row in rows} == set(files)
    for name, digest, size in rows[:-1]:
        assert digest == f"sha256={record_digest(files[name])}"
        assert int(size) == len(files[name])


def test_every_kernel_stays_without_an_architecture(tmp_path: Path) -> None:
    path, trim = trim_wheel(
        open_wheel(make(tmp_path)), tmp_path / "out", arch=None, python="3.12", rules=(HOPPER_ONLY,)
    )
    files = contents(path)
    assert "demo/old.so" in files
    assert CUBIN_75.payload in files["demo/kernels.so"]
    assert not trim.blanked
