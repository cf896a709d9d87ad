"""pip, driven for `setup.py`: hashed installs with one line of progress. Standard library only."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

TICK_S = 0.5
QUIET_S = 10.0  # between two lines of progress where no terminal can redraw one
OPTIONS = [
    "--no-deps",
    "--require-hashes",
    "--only-binary",
    ":all:",
    "--progress-bar",
    "off",
    "--no-compile",
]
NOISE = re.compile(r"WARNING: (Location .* is ignored|Skipping|Running pip as the 'root')")


class InstallFailed(Exception):
    """pip failed. `not_found`: it knows no file of a pinned version."""

    def __init__(self, cause: str, mend: str, *, not_found: bool) -> None:
        super().__init__(cause)
        self.cause = cause
        self.mend = mend
        self.not_found = not_found


def parse_lock(paths: list[Path]) -> dict[str, str]:
    """Package name to its entry (pins, markers, digests) in the locks."""
    entries: dict[str, str] = {}
    for path in paths:
        for block in re.split(r"\n(?=[a-z0-9])", path.read_text(encoding="utf-8")):
            if block.startswith("#"):
                continue
            name = block.split("==", 1)[0]
            entries[name] = f"{entries[name]}\n{block}" if name in entries else block
    return entries


class Pip:
    """The pip of one virtual environment."""

    def __init__(self, python: Path, say: Callable[[str], None]) -> None:
        self._python = python
        self._say = say
        self._site = next((python.parent.parent / "lib").glob("python3*")) / "site-packages"

    def install(self, what: str, entries: Mapping[str, str], *, index: str | None = None) -> None:
        """Install the pinned `entries`; what is there already is left. Raises InstallFailed."""
        self._say(f"installing {what}")
        command = ["install", *OPTIONS, *(["--extra-index-url", index] if index else [])]
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write("\n".join(entries.values()) + "\n")
            file.flush()
            self._run([*command, "-r", file.name], total=len(entries))

    def install_project(self, root: Path) -> None:
        """Make the checkout itself importable, and its command runnable, in place."""
        options = ["--no-deps", "--no-build-isolation", "--quiet"]
        self._run(["install", *options, "--editable", str(root)], total=0)

    def mend(self) -> None:
        """Forget packages whose installation was cut off, so that they are installed again.

        pip writes INSTALLER after all of a package's files and renames what it
        is about to replace to a name that begins with a tilde.
        """
        for info in self._site.glob("*.dist-info"):
            if not (info / "INSTALLER").exists():
                shutil.rmtree(info)
        for left in self._site.glob("~*"):
            shutil.rmtree(left, ignore_errors=True)

    def prune(self, wanted: set[str]) -> None:
        """Uninstall what no lock names any more: left-overs can change what others import."""
        extra = sorted(self._installed() - wanted)
        if extra:
            self._say(f"removing {', '.join(extra)}")
            self._run(["uninstall", "--yes", "--quiet", *extra], total=0)

    def _installed(self) -> set[str]:
        names = (path.name.partition("-")[0] for path in self._site.glob("*.dist-info"))
        return {re.sub(r"[-_.]+", "-", name).lower() for name in names}

    def _run(self, arguments: list[str], *, total: int) -> None:
        quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
        with subprocess.Popen(
            [str(self._python), "-m", "pip", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **quiet, "PIP_ROOT_USER_ACTION": "ignore"},
        ) as process:
            try:
                said = self._follow(process, total)
            except BaseException:
                process.terminate()
                raise
        if process.returncode:
            raise _failure(said)

    def _follow(self, process: subprocess.Popen[str], total: int) -> list[str]:
        """Show progress until pip ends; returns what it said."""
        lines: Queue[str | None] = Queue()

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.put(line.rstrip())
            lines.put(None)

        Thread(target=read, daemon=True).start()
        said: list[str] = []
        meter = _Meter(total, self._installed)
        while True:
            try:
                line = lines.get(timeout=TICK_S)
            except Empty:
                line = ""
            if line is None:
                meter.close()
                return said
            if line and not NOISE.match(line):
                said.append(line)
            meter.show(line)


class _Meter:
    """One line that says how far pip is: redrawn on a terminal, now and then elsewhere."""

    def __init__(self, total: int, installed: Callable[[], set[str]]) -> None:
        self._total = total
        self._installed = installed
        self._before = len(installed())
        self._began = self._shown = time.monotonic()
        self._seen = 0
        self._now = ""
        self._terminal = sys.stdout.isatty()

    def show(self, line: str) -> None:
        """Take in a line of pip's output, or only the time when it is empty."""
        if found := re.match(r"(?:Collecting|Requirement already satisfied:) ([^ =]+)", line):
            self._seen += 1
            self._now = f"fetching {found.group(1)}"
        elif line.startswith("Installing collected"):
            self._now = "unpacking"
        if not self._total or not self._now:
            return
        now = time.monotonic()
        if now - self._shown >= (TICK_S if self._terminal else QUIET_S):
            self._shown = now
            self._print(self._text(now))

    def close(self) -> None:
        """End the line."""
        if self._terminal and self._now:
            print("\r\033[K", end="", flush=True)

    def _text(self, now: float) -> str:
        done = self._seen
        if self._now == "unpacking":
            done = len(self._installed()) - self._before
        return f"{self._now}  {done}/{self._total}  {now - self._began:.0f} s"

    def _print(self, text: str) -> None:
        if self._terminal:
            print(f"\r\033[K[setup]   {text}", end="", flush=True)
        else:
            print(f"[setup]   {text}", flush=True)


def _failure(said: list[str]) -> InstallFailed:
    errors = [line for line in said if line.startswith("ERROR")] or said[-3:]
    text = "\n".join(errors)
    not_found = "No matching distribution" in text
    if "No space left" in "\n".join(said):
        mend = "free some disk space: the environment takes 3 GB"
    elif re.search(r"connection|resolve|timed? ?out|network", "\n".join(said), re.IGNORECASE):
        mend = "check the network or proxy, or point pip to a local index; then run this again"
    elif not_found:
        mend = "pip's index lacks this version for this Python; name another: PYTHON=python3.12"
    else:
        mend = "run it again; if it fails again, remove .venv first"
    return InstallFailed(f"pip failed:\n{text}", mend, not_found=not_found)
