"""Makes `.venv` from the lock and prepares the built-in models. Standard library only.

    python3 -m scripts.setup [--dev] [--no-models]

It runs before anything is installed. A stamp in `.venv` holds a digest of what
was installed; while it matches, nothing is. An interrupted run is taken up
where it stopped. CORRAL_TARGET=cpu|gpu overrides the detection of a GPU.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from scripts.setup_pip import InstallFailed, Pip, parse_lock

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "corral-stamp"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def main() -> None:
    """Install what the stamp lacks, then prepare the models."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dev", action="store_true", help="also what the tests need")
    parser.add_argument("--no-models", action="store_true", help="leave the models alone")
    options = parser.parse_args()
    _check_host()
    lock = ROOT / "requirements" / f"{_target()}.lock"
    locks = [lock, ROOT / "requirements" / "dev.lock"] if options.dev else [lock]
    with _one_at_a_time():
        if not _stamped(locks):
            try:
                _install(locks)
            except InstallFailed as exc:
                _fail(exc.cause, exc.mend)
    if not options.no_models:
        done = subprocess.run([PYTHON, "-m", "serving.models"], cwd=ROOT, check=False)
        if done.returncode:
            sys.exit(done.returncode)


def _check_host() -> None:
    if not (3, 11) <= sys.version_info[:2] <= (3, 14):
        _fail(
            f"Python {sys.version.split()[0]} cannot run corral; it needs 3.11 to 3.14",
            "install one of them and name it: make serve PYTHON=python3.12",
        )
    if not sys.platform.startswith("linux"):
        _fail(
            f"corral runs on Linux; this is {sys.platform}",
            "use a Linux machine, virtual machine or container",
        )


def _target() -> str:
    chosen = os.environ.get("CORRAL_TARGET", "")
    if chosen in ("cpu", "gpu"):
        return chosen
    if chosen:
        _fail(f"CORRAL_TARGET={chosen} is neither cpu nor gpu", "correct or unset it")
    return "gpu" if Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") else "cpu"


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Two set-ups of one checkout take turns; the second finds the work done."""
    with Path(__file__).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another set-up of this checkout is running; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _stamp(locks: list[Path]) -> str:
    digest = hashlib.sha256(sys.version.split()[0].encode())
    for path in [*locks, ROOT / "pyproject.toml"]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _stamped(locks: list[Path]) -> bool:
    """Whether `.venv` holds `locks`. What a run with --dev installed serves one without it too."""
    if not STAMP.exists() or not PYTHON.exists():
        return False
    wanted = {_stamp(locks), _stamp([locks[0], ROOT / "requirements" / "dev.lock"])}
    return STAMP.read_text(encoding="utf-8") in wanted


def _install(locks: list[Path]) -> None:
    began = time.monotonic()
    _make_venv()
    STAMP.unlink(missing_ok=True)
    pip = Pip(PYTHON, _say)
    pip.mend()
    wanted = parse_lock(locks)
    if torch := wanted.get("torch"):
        _install_torch(pip, torch)
    names = " + ".join(path.name for path in locks)
    pip.install(f"{len(wanted)} packages of {names}", wanted)
    pip.prune(set(wanted) | {"corral", "pip"})
    pip.install_project(ROOT)
    pip.compile()
    STAMP.write_text(_stamp(locks), encoding="utf-8")
    _say(f"environment ready in {time.monotonic() - began:.0f} s: {VENV}")


def _install_torch(pip: Pip, entry: str) -> None:
    """The CPU build is not on the default index: try as configured, then PyTorch's own."""
    version = re.split(r"[ ;\\]", entry.partition("==")[2])[0]
    try:
        pip.install(f"torch {version}", {"torch": entry})
    except InstallFailed as exc:
        if "+cpu" not in version or not exc.not_found:
            raise
        _say(f"  not where pip looks; trying {TORCH_CPU_INDEX} too")
        try:
            pip.install(f"torch {version}", {"torch": entry}, index=TORCH_CPU_INDEX)
        except InstallFailed as again:
            raise InstallFailed(
                f"torch {version} is neither where pip looks nor to be had from {TORCH_CPU_INDEX}",
                "connect to the network; or put its wheel into a directory, name that in "
                "PIP_FIND_LINKS and run this again",
                not_found=True,
            ) from again


def _make_venv() -> None:
    have = f"{sys.version_info.major}.{sys.version_info.minor}"
    if PYTHON.exists() and (VENV / "lib" / f"python{have}" / "site-packages" / "pip").is_dir():
        return
    _say(f"creating {VENV} with Python {sys.version.split()[0]}")
    done = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(VENV)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or ["no reason given"]
        why = next((line for line in said if re.search("ensurepip|No module", line)), said[-1])
        _fail(
            f"Python {have} could not create a virtual environment: {why.strip()}",
            f"on Debian and Ubuntu: apt install python{have}-venv (or python3-venv); "
            "or name another Python: make serve PYTHON=python3.12",
        )


def _say(message: str) -> None:
    print(f"[setup] {message}", flush=True)


def _fail(cause: str, mend: str) -> NoReturn:
    sys.exit(f"[setup] {cause}\n[setup] {mend}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\n[setup] interrupted; the next run goes on from here")
