"""The installer as its user runs it: a process of its own, beside the parts of a small bundle."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serving.pack import install
from serving.pack.archive import Compression, Member, write_parts
from serving.pack.bundle import PREFIX, write_texts
from serving.pack.manifest import FileRecord, Manifest, PackageRecord, PartRecord
from tests.unit.pack.wheels import make_wheel

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
CLI = b"import os, sys\nprint('doctor says', *sys.argv[1:], os.environ['CORRAL_HOME'])\n"
NOISE = b"".join(hashlib.sha256(bytes([n])).digest() for n in range(256))


def bundle(out: Path, scratch: Path, compression: Compression = "xz", **changes: Any) -> Manifest:
    """Three parts or more: a package with a command, the doctor that it will ask, a model."""
    out.mkdir(exist_ok=True)
    scratch.mkdir()
    main = b"def main():\n    print('hello from demo')\n"
    wheels = [
        make_wheel(
            scratch,
            "demo",
            {"demo/__init__.py": main, "demo/noise.bin": NOISE},
            entry_points="[console_scripts]\ndemo = demo:main\n",
        ),
        make_wheel(scratch, "serving", {"serving/__init__.py": b"", "serving/cli.py": CLI}),
    ]
    (scratch / "config.json").write_text("{}")
    members = [Member(path, f"wheels/{path.name}") for path in wheels]
    members.append(Member(scratch / "config.json", "home/models/tiny/config.json"))
    written = write_parts(
        members, out, prefix=PREFIX, compression=compression, level=3, part_bytes=4000
    )
    manifest = Manifest(
        corral="1", target="cpu", python=PYTHON, arch=None, torch_from_host=False, lock="x.lock",
        platform=f"manylinux_2_17_{platform.machine()}", compression=compression,
        packages=[
            PackageRecord(name=path.name.split("-")[0], version="1.0", file=f"wheels/{path.name}",
                          origin_sha256="0" * 64, origin_bytes=path.stat().st_size)
            for path in wheels
        ],
        omitted={}, on_host={}, replaces={}, imports=["demo"], config="fake",
        models=["tiny"], adapters=[],
        files=[
            FileRecord(path=m.name, size=m.path.stat().st_size, sha256=install.sha256(m.path))
            for m in members
        ],
        parts=[PartRecord(name=p.name, size=p.size, sha256=p.sha256) for p in written.parts],
        total_bytes=sum(part.size for part in written.parts),
    ).model_copy(update=changes)  # fmt: skip
    write_texts(manifest, out)
    return manifest


def run(out: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`install.sh` with this Python."""
    return subprocess.run(
        [str(out / "install.sh"), *arguments],
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "CORRAL_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    bundle(tmp_path / "out", tmp_path / "scratch")
    return tmp_path / "out"


def test_parts_may_come_in_several_goes(tmp_path: Path, out: Path) -> None:
    (tmp_path / "later").mkdir()
    late, damaged = out / f"{PREFIX}000", out / f"{PREFIX}002"
    whole = damaged.read_bytes()
    damaged.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    late.rename(tmp_path / "later" / late.name)
    first = run(out, tmp_path / "home")
    assert first.returncode == 2
    assert f"{late.name}, {damaged.name}; then run this again" in first.stdout
    assert "checksum differs" in first.stdout
    assert not (tmp_path / "home").exists()
    (tmp_path / "later" / late.name).rename(late)
    damaged.write_bytes(whole)
    second = run(out, tmp_path / "home", "--system-site-packages")
    assert second.returncode == 0, second.stdout + second.stderr
    assert f"doctor says doctor --config fake {tmp_path / 'home'}" in second.stdout
    said = subprocess.run(
        [tmp_path / "home" / "venv" / "bin" / "demo"], capture_output=True, text=True, check=True
    )
    assert said.stdout == "hello from demo\n"
    assert (tmp_path / "home" / "models" / "tiny" / "config.json").read_text() == "{}"
    third = run(out, tmp_path / "home", "--system-site-packages")
    assert "holds this bundle already" in third.stdout


def test_another_bundle_replaces_what_an_earlier_one_installed(tmp_path: Path, out: Path) -> None:
    assert run(out, tmp_path / "home", "--system-site-packages").returncode == 0
    left = next((tmp_path / "home" / "venv").glob("lib/*/site-packages")) / "left.py"
    left.touch()
    shutil.rmtree(out)
    bundle(out, tmp_path / "again", corral="2")
    done = run(out, tmp_path / "home", "--system-site-packages")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not left.exists()


@pytest.mark.parametrize("compression", ["xz", "zstd", "none"])
def test_prefix_is_installed_without_pip(tmp_path: Path, compression: Compression) -> None:
    if compression == "zstd" and shutil.which("zstd") is None:
        pytest.skip("needs the command zstd")
    bundle(tmp_path / "out", tmp_path / "scratch", compression)
    done = run(tmp_path / "out", tmp_path / "home", "--prefix", str(tmp_path / "prefix"))
    assert done.returncode == 0, done.stdout + done.stderr
    command = tmp_path / "prefix" / "bin" / "demo"
    said = subprocess.run([command], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert said.stdout == "hello from demo\n"
    assert next(tmp_path.glob("prefix/lib/*/site-packages/demo-1.0.dist-info/INSTALLER"))


def test_check_changes_nothing(tmp_path: Path, out: Path) -> None:
    done = run(out, tmp_path / "home", "--check")
    assert done.returncode == 0, done.stdout
    assert "verified" in done.stdout
    assert not (tmp_path / "home").exists()


def test_damaged_manifest_is_refused(tmp_path: Path, out: Path) -> None:
    text = (out / "manifest.json").read_text()
    (out / "manifest.json").write_text(text.replace('"cpu"', '"gpu"'))
    done = run(out, tmp_path / "home")
    assert done.returncode == 1
    assert "its checksum differs" in done.stderr


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"python": "3.99"}, "the bundle is for Python 3.99"),
        ({"platform": "manylinux_2_28_vax"}, "the bundle is for vax"),
        ({"schema_version": 9}, "layout 9"),
    ],
)
def test_bundle_for_another_machine_is_refused(
    tmp_path: Path, changes: dict[str, Any], cause: str
) -> None:
    bundle(tmp_path / "out", tmp_path / "scratch", **changes)
    done = run(tmp_path / "out", tmp_path / "home")
    assert done.returncode == 1
    assert cause in done.stderr
    assert "->" in done.stderr


def test_what_the_host_lacks_is_named(tmp_path: Path) -> None:
    bundle(tmp_path / "out", tmp_path / "scratch", on_host={"no-such-package": "1.0"},
           platform=f"manylinux_2_99_{platform.machine()}")  # fmt: skip
    done = run(tmp_path / "out", tmp_path / "home", "--check")
    assert done.returncode == 1
    assert "MISSING no-such-package is not there, 1.0 was" in done.stdout
    assert "MISSING glibc" in done.stdout


def test_module_that_does_not_import_fails_the_installation(tmp_path: Path) -> None:
    bundle(tmp_path / "out", tmp_path / "scratch", imports=["demo", "no_such_module"])
    done = run(tmp_path / "out", tmp_path / "home", "--system-site-packages")
    assert done.returncode == 1
    assert "FAIL import no_such_module" in done.stdout


def test_checksums_are_those_of_sha256sum(out: Path) -> None:
    done = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=out, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": OK") == len(list(out.iterdir())) - 1
