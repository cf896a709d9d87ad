"""Installs the bundle that this file lies in, without a network.

    ./install.sh [--venv DIR | --prefix DIR] [--check]

Verifies every part, says which are still missing, unpacks, installs into a
virtual environment, checks imports, driver and GPU and runs `corral doctor`.
Parts may come in any order and in several goes; what is done is not done again.

It is copied out of `serving/pack/` as it is: standard library only, Python 3.9
or newer. Exit status: 0 all is well, 1 something failed, 2 parts are missing.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import lzma
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn

SCHEMA = 1
STAMP = "corral-bundle.json"
BLOCK = 2**20
HOST_PACKAGES = "corral-host.pth"
Manifest = dict[str, Any]


def main() -> None:
    """Everything in order; stops at the first step that cannot go on."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    home = Path(os.environ.get("CORRAL_HOME") or "~/.corral").expanduser().absolute()
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--venv", type=Path, help="environment to make (default: CORRAL_HOME/venv)")
    where.add_argument("--prefix", type=Path, help="install below this directory, without a venv")
    parser.add_argument("--system-site-packages", action="store_true",
                        help="let the environment see this Python's packages (with torch from the "
                        "host: always)")  # fmt: skip
    parser.add_argument("--check", action="store_true", help="only verify; change nothing")
    parser.add_argument("--keep", action="store_true", help="keep the unpacked wheels")
    options = parser.parse_args()
    bundle = Path(__file__).resolve().parent
    manifest = read_manifest(bundle)
    check_python(manifest)
    missing = verify_parts(bundle, manifest)
    lacking = check_host(manifest)
    if missing:
        step(f"{len(missing)} of {len(manifest['parts'])} parts are still to come or must come "
             f"again: {', '.join(missing)}; then run this again")  # fmt: skip
        sys.exit(2)
    if options.check:
        sys.exit(1 if lacking else 0)
    place = Place((options.prefix or options.venv or home / "venv").absolute(), options.prefix)
    see_host = manifest["torch_from_host"] or options.system_site_packages
    install_all(bundle, manifest, place, home, see_host=see_host, keep=options.keep)
    sys.exit(final_checks(manifest, place, home) or bool(lacking))


class Place:
    """Where packages go: a virtual environment, or a prefix of the running Python."""

    def __init__(self, root: Path, is_prefix: bool) -> None:
        self.root = root
        self.is_prefix = bool(is_prefix)
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        self.site = root / "lib" / version / "site-packages"
        self.bin = root / "bin"
        self.python = Path(sys.executable) if is_prefix else self.bin / "python"

    def environment(self) -> dict[str, str]:
        """For processes that are to see the packages."""
        path = f"{self.bin}{os.pathsep}{os.environ.get('PATH', '')}"
        found = {**os.environ, "PATH": path, "PYTHONSAFEPATH": "1"}
        if self.is_prefix:
            found["PYTHONPATH"] = str(self.site)
        else:
            found.pop("PYTHONPATH", None)
        return found


def step(message: str) -> None:
    """One line of progress."""
    print(f"[install] {message}", flush=True)


def fail(cause: str, mend: str) -> NoReturn:
    """End with a cause and what to do about it."""
    sys.exit(f"[install] {cause}\n[install] -> {mend}")


def sha256(path: Path) -> str:
    """Digest of a file's content, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def read_manifest(bundle: Path) -> Manifest:
    """The manifest beside this file, its own checksum right."""
    path = bundle / "manifest.json"
    try:
        text = (bundle / "SHA256SUMS").read_text(encoding="utf-8")
        sums = {line.split()[1]: line.split()[0] for line in text.splitlines()}
        manifest: Manifest = json.loads(path.read_text(encoding="utf-8"))
        intact = sums["manifest.json"] == sha256(path)
    except (OSError, ValueError, KeyError) as exc:
        fail(f"{path} or SHA256SUMS cannot be read: {exc}", "copy both from the bundle again")
    if not intact:
        fail(f"{path} is damaged: its checksum differs", "copy it from the bundle again")
    if manifest["schema_version"] != SCHEMA:
        fail(f"the bundle has layout {manifest['schema_version']}, this installer reads {SCHEMA}",
             "use the install.py that came with the bundle")  # fmt: skip
    return manifest


def check_python(manifest: Manifest) -> None:
    """Go on with the bundle's Python, another one on the PATH if need be."""
    wanted = manifest["python"]
    machine = manifest["platform"].split("_", 3)[3]
    if platform.machine() != machine:
        fail(f"the bundle is for {machine}, this is {platform.machine()}",
             f"pack again: corral pack --platform manylinux_2_28_{platform.machine()}")  # fmt: skip
    have = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if have == wanted:
        return
    other = shutil.which(f"python{wanted}")
    if other is None:
        fail(f"the bundle is for Python {wanted}, this is {have}",
             f"name one: PYTHON=/path/to/python{wanted} ./install.sh; or pack again with "
             f"--python {have}")  # fmt: skip
    os.execv(other, [other, str(Path(__file__).resolve()), *sys.argv[1:]])


def verify_parts(bundle: Path, manifest: Manifest) -> list[str]:
    """Names of the parts that are not there or not whole."""
    wrong: list[str] = []
    for part in manifest["parts"]:
        path = bundle / part["name"]
        if not path.is_file():
            state = "not there yet"
        elif path.stat().st_size != part["size"]:
            state = f"{path.stat().st_size} of {part['size']} bytes"
        elif sha256(path) != part["sha256"]:
            state = "damaged: its checksum differs"
        else:
            state = "verified"
        step(f"{part['name']}  {part['size'] / 1e6:6.1f} MB  {state}")
        if state != "verified":
            wrong.append(part["name"])
    return wrong


def check_host(manifest: Manifest) -> list[str]:
    """What the host lacks of what the bundle leaves to it; prints each with its mend."""
    lacking: list[str] = []
    libc, glibc = platform.libc_ver()
    wanted = manifest["platform"].split("_")[1:3]
    if libc == "glibc" and [int(n) for n in glibc.split(".")[:2]] < [int(n) for n in wanted]:
        lacking.append(f"glibc {glibc}, the bundle is for {'.'.join(wanted)}; pack again with "
                       f"--platform manylinux_{glibc.replace('.', '_')}_...")  # fmt: skip
    for name, version in manifest["on_host"].items():
        try:
            have = metadata.version(name)
        except metadata.PackageNotFoundError:
            lacking.append(f"{name} is not there, {version} was when the bundle was packed; "
                           f"run install.sh with the Python that has it: PYTHON=... (now: "
                           f"{sys.executable}), or pack again")  # fmt: skip
            continue
        if have != version:
            step(f"{name} {have} on this host, {version} in the list it was packed for")
    if manifest["target"] == "gpu":
        lacking += check_driver()
    for line in lacking:
        step(f"MISSING {line}")
    return lacking


def check_driver() -> list[str]:
    """What is wrong with the NVIDIA driver."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return [f"nvidia-smi does not run ({exc}); install or mend the NVIDIA driver"]
    if done.returncode:
        said = (done.stdout + done.stderr).strip()
        return [f"nvidia-smi failed: {said}; mend the NVIDIA driver"]
    for line in done.stdout.strip().splitlines():
        step(f"GPU {line}")
    return []


def install_all(
    bundle: Path, manifest: Manifest, place: Place, home: Path, *, see_host: bool, keep: bool
) -> None:
    """Unpack and install, unless the place holds this very bundle already."""
    stamp = place.root / STAMP
    text = (bundle / "manifest.json").read_text(encoding="utf-8")
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == text:
        step(f"{place.root} holds this bundle already")
        return
    ours = stamp.is_file()
    unpacked = place.root.parent / f".{place.root.name}.unpacked"
    unpack(bundle, manifest, unpacked)
    make_environment(place, see_host, afresh=ours)
    stamp.write_text("{}", encoding="utf-8")
    wheels = [unpacked / package["file"] for package in manifest["packages"]]
    install_wheels(place, wheels)
    step("compiling")
    quiet = [str(place.python), "-m", "compileall", "-q", "-j0", "-x", "/tests?/", str(place.site)]
    subprocess.run(quiet, env=place.environment(), stdout=subprocess.DEVNULL, check=False)
    for file in manifest["files"]:
        if file["path"].startswith("home/"):
            target = home / file["path"][len("home/") :]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(unpacked / file["path"], target)
    stamp.write_text(text, encoding="utf-8")
    if not keep:
        shutil.rmtree(unpacked)


def unpack(bundle: Path, manifest: Manifest, directory: Path) -> None:
    """Write the archive's files, each under its name only when it is whole."""
    wanted = {file["path"]: file for file in manifest["files"]}
    done = {
        path for path, file in wanted.items()
        if (directory / path).is_file() and (directory / path).stat().st_size == file["size"]
    }  # fmt: skip
    if done == set(wanted):
        return
    step(f"unpacking {len(wanted)} files")
    with open_stream(bundle, manifest) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        for info in tar:
            source = tar.extractfile(info)
            file = wanted.get(info.name)
            if source is None or file is None or ".." in PurePosixPath(info.name).parts:
                fail(f"the archive holds {info.name!r}, the manifest does not", "pack again")
            target = directory / info.name
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch = target.with_name(target.name + ".part")
            with scratch.open("wb") as out:
                shutil.copyfileobj(source, out, BLOCK)
            if sha256(scratch) != file["sha256"]:
                fail(f"{info.name} came out damaged", "check the disk, then run this again")
            scratch.replace(target)


class Joined(io.RawIOBase):
    """The parts, one after the other, as one file."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = list(paths)
        self._file: IO[bytes] | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._file is None:
                if not self._paths:
                    return 0
                self._file = self._paths.pop(0).open("rb")
            data = self._file.read(len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
            self._file.close()
            self._file = None


def open_stream(bundle: Path, manifest: Manifest) -> IO[bytes]:
    """The archive, decompressed."""
    joined = io.BufferedReader(Joined([bundle / part["name"] for part in manifest["parts"]]), BLOCK)
    if manifest["compression"] == "none":
        return joined
    if manifest["compression"] == "xz":
        return lzma.open(joined)
    if shutil.which("zstd") is None:
        fail("the bundle is compressed with zstd, and the command is not here",
             "install zstd, or pack again with --compress xz")  # fmt: skip
    process = subprocess.Popen(
        ["zstd", "-dc", "--long=27"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def feed(pipe: IO[bytes]) -> None:
        with pipe:
            shutil.copyfileobj(joined, pipe, BLOCK)

    threading.Thread(target=feed, args=(process.stdin,), daemon=True).start()
    return process.stdout


def make_environment(place: Place, see_host: bool, *, afresh: bool) -> None:
    """Make the directories or the virtual environment, and let it see this Python's packages.

    `afresh`: what is there is left from another bundle, or from a run that was cut off.

    `venv --system-site-packages` would show those of the interpreter below: where this Python
    is itself a virtual environment, torch is in that one.
    """
    if place.is_prefix:
        place.site.mkdir(parents=True, exist_ok=True)
        return
    if afresh or not place.python.exists():
        step(f"creating {place.root}")
        command = [sys.executable, "-m", "venv", "--without-pip", str(place.root)]
        command += ["--clear"] if afresh else []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stdout + done.stderr).strip()
            fail(f"no virtual environment: {said}",
                 "install python3-venv, or use --prefix DIR")  # fmt: skip
    if see_host:
        paths = [p for p in sys.path if re.search(r"/(site|dist)-packages$", p)]
        lines = "".join(f"import site; site.addsitedir({path!r})\n" for path in paths)
        (place.site / HOST_PACKAGES).write_text(lines, encoding="utf-8")


def install_wheels(place: Place, wheels: list[Path]) -> None:
    """With this Python's pip, or by hand where there is none."""
    step(f"installing {len(wheels)} packages into {place.root}")
    pip = [sys.executable, "-m", "pip", "--python", str(place.python), "install", "--no-index",
           "--no-deps", "--no-compile", "--quiet", "--disable-pip-version-check",
           "--no-warn-script-location", "--force-reinstall", "--ignore-installed"]  # fmt: skip
    if not place.is_prefix and pip_version() >= (22, 3):
        done = subprocess.run([*pip, *map(str, wheels)], env=place.environment(), check=False)
        if done.returncode == 0:
            return
        step("pip failed; unpacking the wheels without it")
    by_hand = Path(__file__).resolve().with_name("install_wheels.py")
    names = [str(part) for part in (place.root, place.site, place.python, *wheels)]
    done = subprocess.run([sys.executable, str(by_hand), *names], check=False)
    if done.returncode:
        fail("the wheels could not be unpacked", "is there space on the disk? run this again")


def pip_version() -> tuple[int, ...]:
    """Of this Python's pip; (0,) without one."""
    try:
        return tuple(int(part) for part in re.findall(r"\d+", metadata.version("pip"))[:2])
    except metadata.PackageNotFoundError:
        return (0,)


def final_checks(manifest: Manifest, place: Place, home: Path) -> int:
    """Imports, requirements, GPU, `corral doctor`. 0 if all is well."""
    python = [str(place.python)]
    probe = str(Path(__file__).resolve().with_name("install_probe.py"))
    probing = [*python, probe, str(place.root / STAMP)]
    failed = subprocess.run(probing, env=place.environment(), check=False).returncode
    step(f"corral doctor --config {manifest['config']}")
    doctor = [*python, "-m", "serving.cli", "doctor", "--config", manifest["config"]]
    environment = {**place.environment(), "CORRAL_HOME": str(home)}
    failed |= subprocess.run(doctor, env=environment, check=False).returncode
    state = "something is missing: see above" if failed else "ready"
    step(f"{state}; {place.bin / 'corral'} serve --config {manifest['config']}")
    return 1 if failed else 0


if __name__ == "__main__":
    main()
