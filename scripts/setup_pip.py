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
SELDOM = r"/(tests?|rllib|transformers/models/(?!auto|bert|llama|mistral|qwen)[^/]+)/"
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
        self._root = python.parent.parent
        self._site = next((self._root / "lib").glob("python3*")) / "site-packages"

    def install(self, what: str, entries: Mapping[str, str], *, index: str | None = None) -> None:
        """Install the pinned `entries`; what is there already is left. Raises InstallFailed."""
        self._say(f"installing {what}")
        command = ["install", *OPTIONS, *(["--extra-index-url", index] if index else [])]
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write("\n".join(entries.values()) + "\n")
            file.flush()
            self._pip([*command, "-r", file.name], total=len(entries))

    def install_project(self, root: Path) -> None:
        """Make the checkout itself importable, and its command runnable, in place."""
        options = ["--no-deps", "--no-build-isolation", "--quiet"]
        self._pip(["install", *options, "--editable", str(root)])

    def mend(self) -> None:
        """Forget packages whose installation was cut off, so that they are installed again.

        pip writes INSTALLER after all of a package's files and renames what it
        is about to replace to a name that begins with a tilde. Killed, it also
        leaves what it has downloaded.
        """
        for info in self._site.glob("*.dist-info"):
            if not (info / "INSTALLER").exists():
                shutil.rmtree(info)
        for left in (*self._site.glob("~*"), *self._root.glob("tmp-*")):
            shutil.rmtree(left, ignore_errors=True)

    def prune(self, wanted: set[str]) -> None:
        """Uninstall what no lock names any more: left-overs can change what others import."""
        extra = sorted(self._installed() - wanted)
        if extra:
            self._say(f"removing {', '.join(extra)}")
            self._pip(["uninstall", "--yes", "--quiet", *extra])

    def compile(self) -> None:
        """Write bytecode on all cores. pip would use one, and a process that may not write it
        (PYTHONDONTWRITEBYTECODE) would compile at every start: 13 s for vLLM."""
        self._say("compiling")
        self._run(["-m", "compileall", "-j0", "-x", SELDOM, str(self._site)], _Meter("compiled"))

    def _installed(self) -> set[str]:
        names = (path.name.partition("-")[0] for path in self._site.glob("*.dist-info"))
        return {re.sub(r"[-_.]+", "-", name).lower() for name in names}

    def _pip(self, arguments: list[str], total: int = 0) -> None:
        meter = _PipMeter(total, self._installed) if total else _Meter("")
        said = self._run(["-m", "pip", *arguments], meter)
        if said is not None:
            raise _failure(said)

    def _run(self, arguments: list[str], meter: _Meter) -> list[str] | None:
        """Run the environment's Python; what it said if it failed."""
        quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
        with (
            tempfile.TemporaryDirectory(dir=self._root, prefix="tmp-") as scratch,
            subprocess.Popen(
                [str(self._python), *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env={**os.environ, **quiet, "PIP_ROOT_USER_ACTION": "ignore", "TMPDIR": scratch},
            ) as process,
        ):
            try:
                said = _follow(process, meter)
            except BaseException:
                process.terminate()
                raise
        return said if process.returncode else None


def _follow(process: subprocess.Popen[str], meter: _Meter) -> list[str]:
    """Show progress until the process ends; returns what it said."""
    lines: Queue[str | None] = Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line.rstrip())
        lines.put(None)

    Thread(target=read, daemon=True).start()
    said: list[str] = []
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
    """One line that says how far it is: redrawn on a terminal, now and then elsewhere."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._began = self._shown = time.monotonic()
        self._seen = 0
        self._terminal = sys.stdout.isatty()

    def show(self, line: str) -> None:
        """Take in a line of output, or only the time when it is empty."""
        self._take(line)
        now = time.monotonic()
        text = self._text()
        if text and now - self._shown >= (TICK_S if self._terminal else QUIET_S):
            self._shown = now
            text = f"[setup]   {text}  {now - self._began:.0f} s"
            print(f"\r\033[K{text}" if self._terminal else text, end=self._end, flush=True)

    def close(self) -> None:
        """Wipe the line."""
        if self._terminal:
            print("\r\033[K", end="", flush=True)

    @property
    def _end(self) -> str:
        return "" if self._terminal else "\n"

    def _take(self, line: str) -> None:
        self._seen += line.startswith("Compiling")

    def _text(self) -> str:
        return f"{self._verb}  {self._seen}" if self._verb else ""


class _PipMeter(_Meter):
    """Packages fetched, then packages unpacked, of so many."""

    def __init__(self, total: int, installed: Callable[[], set[str]]) -> None:
        super().__init__("")
        self._total = total
        self._installed = installed
        self._before = len(installed())

    def _take(self, line: str) -> None:
        if found := re.match(r"(?:Collecting|Requirement already satisfied:) ([^ =]+)", line):
            self._seen += 1
            self._verb = f"fetching {found.group(1)}"
        elif line.startswith("Installing collected"):
            self._verb = "unpacking"

    def _text(self) -> str:
        done = self._seen
        if self._verb == "unpacking":
            done = len(self._installed()) - self._before
        return f"{self._verb}  {done}/{self._total}" if self._verb else ""


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
