"""Packs this machine's CPU bundle, installs it where there is no network, serves and asks.

    python -m scripts.rehearse_bundle [--bundle DIR] [--scratch DIR]

Takes 10 GB of disk and some minutes. Everything after the packing runs in a network namespace
that has loopback alone, from a Python without packages, in a home of its own: `install.sh`,
`corral doctor`, then `corral serve` with `fake` and with `local`, each asked once by the
unmodified openai client. Needs `unshare` and `ip`. Exit status 1 at the first step that fails.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
ALONE = ("unshare", "--user", "--map-root-user", "--net")
ELSEWHERE = "192.0.2.1"
"""Of TEST-NET-1: routed nowhere, and here not even known."""
MODELS = ("smollm2-135m", "all-minilm-l6-v2")
ANSWERS = {"fake": "capital of France", "local": "Paris"}
"""What the answer must hold, by configuration: the fake engine echoes, the model knows."""
READY_S = 600.0
STOP_S = 60.0
CHAT = """
import sys
from openai import OpenAI
key = next(line.split()[1] for line in open(sys.argv[2]) if line.startswith("admin_key:"))
client = OpenAI(base_url=sys.argv[1], api_key=key, max_retries=0)
said = client.chat.completions.create(
    model=next(iter(client.models.list())).id,
    messages=[{"role": "user", "content": "What is the capital of France?"}],
    max_tokens=24,
    temperature=0,
)
print(said.choices[0].message.content)
"""


def main() -> None:
    """Pack if need be, then go on inside the namespace."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="a CPU bundle with both models; default: pack")
    parser.add_argument("--scratch", type=Path, help="a directory to work in and to keep")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        rehearse(options.bundle, options.scratch)
        return
    with _scratch(options.scratch) as scratch:
        bundle = options.bundle.absolute() if options.bundle else pack(scratch / "bundle")
        words = ["--inside", "--bundle", str(bundle), "--scratch", str(scratch)]
        run("all of it", [*ALONE, sys.executable, "-m", "scripts.rehearse_bundle", *words], ROOT)


@contextmanager
def _scratch(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.absolute()
    else:
        with tempfile.TemporaryDirectory(prefix="corral-bundle-") as directory:
            yield Path(directory)


def pack(bundle: Path) -> Path:
    """Make the bundle, quickly rather than small. The wheels stay in this user's cache."""
    glibc = platform.libc_ver()[1].replace(".", "_")
    fit = f"manylinux_{glibc}_{platform.machine()}"
    models = [word for name in MODELS for word in ("--models", name)]
    command = [sys.executable, "-m", "serving.cli", "pack", "--target", "cpu", "--python", VERSION]
    run("pack", [*command, "--platform", fit, *models, "--compress-level", "0", str(bundle)], ROOT)
    return bundle


def rehearse(bundle: Path, scratch: Path) -> None:
    """From the installation to the last answer; this process sees loopback alone."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    if subprocess.run(["ip", "route", "get", ELSEWHERE], capture_output=True).returncode == 0:
        sys.exit("the network is still there")
    home, place = scratch / "home", scratch / "venv"
    bare = Path(sys.base_prefix, "bin", f"python{VERSION}")
    environment = {"PATH": os.defpath, "PYTHON": str(bare), "CORRAL_HOME": str(home)}
    run("install.sh", [str(bundle / "install.sh"), "--venv", str(place)], scratch, environment)
    corral = str(place / "bin" / "corral")
    for config, wanted in ANSWERS.items():
        run(f"doctor {config}", [corral, "doctor", "--config", config], scratch, environment)
        with serving(corral, config, scratch, environment) as url:
            client = [str(place / "bin" / "python"), "-c", CHAT, url, str(home / "credentials")]
            said = run(f"chat {config}", client, scratch, environment)
        if wanted not in said:
            sys.exit(f"{config} was to say {wanted!r} and said {said!r}")


@contextmanager
def serving(corral: str, config: str, scratch: Path, environment: dict[str, str]) -> Iterator[str]:
    """The API, http://…/v1, of `corral serve`, from when it is ready until it has been ended."""
    log = scratch / f"serve-{config}.log"
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [corral, "serve", "--config", config],
            cwd=scratch, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        while not (found := re.search(r"^ready (\S+)", log.read_text(), re.MULTILINE)):
            if process.poll() is not None or time.monotonic() - began > READY_S:
                sys.exit(f"corral serve --config {config} is not ready:\n{log.read_text()}")
            time.sleep(0.2)
        report(f"serve {config}", began)
        yield found[1]
    finally:
        process.send_signal(signal.SIGINT)
        status = process.wait(STOP_S)
    if status:
        sys.exit(f"corral serve --config {config} ended with {status}:\n{log.read_text()}")


def run(
    what: str, command: Sequence[str], cwd: Path, environment: dict[str, str] | None = None
) -> str:
    """Run to its end, shown as it is; what it printed. With an environment, with no other."""
    began = time.monotonic()
    shown = environment is None
    done = subprocess.run(
        command, cwd=cwd, env=environment, text=True, check=False,
        stdout=None if shown else subprocess.PIPE, stderr=None if shown else subprocess.STDOUT,
    )  # fmt: skip
    said = done.stdout or ""
    print(said, end="", flush=True)
    if done.returncode:
        sys.exit(f"[rehearsal] {what} ended with {done.returncode}")
    report(what, began)
    return said


def report(what: str, began: float) -> None:
    """One line for a step that went well."""
    print(f"[rehearsal] {what}: ok, {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    if missing := [name for name in ("unshare", "ip") if shutil.which(name) is None]:
        sys.exit(f"needs {' and '.join(missing)}, to take the network away")
    main()
