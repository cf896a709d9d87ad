"""The project itself as a wheel, built from its checkout, and what it requires."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

from serving.pack.cache import Wheel, open_wheel
from serving.pack.errors import PackError

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("configs", "rag", "finetune", "benchmarks", "serving")
FILES = ("pyproject.toml", "README.md", "LICENSE")
REVISION = "REVISION"
"""Beside the packages of an installation: what they were packed from."""
NOT_CODE = shutil.ignore_patterns("__pycache__", "results", "*.pyc")


def requirements(extra: str, root: Path = ROOT) -> Iterator[Requirement]:
    """What pyproject.toml requires, with the extra `cpu` or `gpu`. Raises PackError."""
    path = root / "pyproject.toml"
    if not path.is_file():
        raise PackError(f"{path} is missing: `corral pack` needs a checkout, not an installation")
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    for line in (*project["dependencies"], *project["optional-dependencies"][extra]):
        yield Requirement(line)


def revision(root: Path = ROOT) -> str | None:
    """The checkout's commit, with `-modified` when it is not quite that; None if nobody knows.

    A copy without its history may say it in a file REVISION.
    """
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return f"{commit}-modified" if _git(root, "status", "--porcelain") else commit
    except (OSError, subprocess.CalledProcessError):
        path = root / REVISION
        return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def build_wheel(directory: Path, root: Path = ROOT) -> Wheel:
    """Build the checkout's wheel into `directory`, from a copy. Raises PackError."""
    isolation = ["--no-build-isolation"] if find_spec("setuptools") else []
    with tempfile.TemporaryDirectory() as scratch:
        for name in FILES:
            shutil.copy2(root / name, scratch)
        for room in ROOMS:
            if (root / room).is_dir():
                shutil.copytree(root / room, Path(scratch, room), ignore=NOT_CODE)
        done = subprocess.run(
            [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", *isolation,
             "--wheel-dir", str(directory), scratch],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-3:])
        raise PackError(f"the project's own wheel could not be built; is setuptools there?\n{said}")
    return open_wheel(next(directory.glob("corral-*.whl")))
