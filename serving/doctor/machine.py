"""Checks of the machine: Python, platform, memory, disk, file limits, GPU."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from serving.config import ServeConfig
from serving.doctor.check import Check, fail, ok, warn
from serving.home import Home

GIB = 2**30
MEMORY_WARN_GIB = 6.0
MEMORY_FAIL_GIB = 2.5
"""What the default configuration takes in all is 4 to 5 GiB."""
DISK_WARN_GIB = 5.0
DISK_FAIL_GIB = 1.0
FILES = 4096
"""File descriptors for about a thousand streams: two a stream in the gateway and in HAProxy."""
CUDA_13_DRIVER = 580
"""Oldest driver branch for CUDA 13, which the GPU lock's torch is built with."""


def machine_checks(home: Home, config: ServeConfig) -> Iterator[Check]:
    """All checks of this module, in the order in which they are best mended."""
    yield _python()
    yield _platform()
    yield _gpu(config)
    yield _memory()
    yield _shared_memory(config)
    yield _disk(home)
    yield _files()


def _python() -> Check:
    found = f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})"
    if not (3, 11) <= sys.version_info[:2] <= (3, 14):
        return fail("Python", found, "use Python 3.11 to 3.14: `make setup PYTHON=python3.12`")
    return ok("Python", found)


def _platform() -> Check:
    found = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    if platform.system() != "Linux":
        return fail("platform", found, "run corral on Linux: HAProxy and vLLM come for it alone")
    if platform.machine() not in ("x86_64", "aarch64"):
        return fail("platform", found, "use an x86_64 or aarch64 machine")
    return ok("platform", found)


def _gpu(config: ServeConfig) -> Check:
    wanted = sum(model.replicas.num_gpus * model.replicas.min for model in config.models)
    try:
        torch = version("torch")
    except PackageNotFoundError:
        return fail("GPU", "torch is not installed", "`make setup`")
    cards = _nvidia_smi()
    if isinstance(cards, str):
        return fail("GPU", cards, "mend the NVIDIA driver until `nvidia-smi` works, then reboot")
    if not cards:
        if wanted:
            return fail(
                "GPU",
                f"none, and the configuration wants {wanted:g}",
                "use a machine with an NVIDIA GPU, or another configuration: `--config local`",
            )
        return ok("GPU", f"none; torch {torch} computes on the CPU")
    found = f"{len(cards)} x {cards[0]}; torch {torch}"
    if torch.endswith("+cpu"):
        mend = "install the GPU build: `make clean`, then `CORRAL_TARGET=gpu make setup`"
        return (fail if wanted else warn)("GPU", f"{found} does not use it", mend)
    if len(cards) < wanted:
        return fail("GPU", f"{found}; the configuration wants {wanted:g}", "set replicas.num_gpus")
    driver = cards[0].rpartition("driver ")[2]
    if driver.partition(".")[0].isdigit() and int(driver.partition(".")[0]) < CUDA_13_DRIVER:
        mend = f"update the driver to {CUDA_13_DRIVER} or newer: vLLM and torch are CUDA 13 builds"
        return warn("GPU", found, mend)
    return ok("GPU", found)


def _nvidia_smi() -> list[str] | str:
    """Name, memory and driver of each card; a text if the driver is there but does not answer."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = "--query-gpu=name,memory.total,driver_version"
    try:
        done = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"nvidia-smi does not answer: {exc}"
    if done.returncode:
        return f"nvidia-smi failed: {(done.stdout + done.stderr).strip()}"
    rows = (row.split(", ") for row in done.stdout.strip().splitlines())
    return [f"{name} {memory}, driver {driver}" for name, memory, driver in rows]


def _memory() -> Check:
    memory = psutil.virtual_memory()
    total, available = memory.total, memory.available
    if (limit := _cgroup_limit()) is not None and limit < total:
        total, available = limit, min(available, limit)
    found = f"{available / GIB:.1f} of {total / GIB:.1f} GiB available"
    mend = "stop other programs or use a smaller configuration: `--config fake` needs no model"
    if available < MEMORY_FAIL_GIB * GIB:
        return fail("memory", found, mend)
    if available < MEMORY_WARN_GIB * GIB:
        return warn("memory", found, mend)
    return ok("memory", found)


def _cgroup_limit() -> int | None:
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(path).read_text(encoding="utf-8").strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else None
    return None


def _shared_memory(config: ServeConfig) -> Check:
    need = config.cluster.object_store_mib
    try:
        free = shutil.disk_usage("/dev/shm").free / 2**20
    except OSError:
        free = 0
    found = f"{free:.0f} MiB free in /dev/shm, {need} MiB needed"
    if free < need:
        mend = "in a container: `--shm-size=1g`; elsewhere: `mount -o remount,size=1g /dev/shm`"
        return warn("shared memory", found, mend)
    return ok("shared memory", found)


def _disk(home: Home) -> Check:
    place = existing(home.root)
    free = shutil.disk_usage(place).free / GIB
    found = f"{free:.1f} GiB free in {place}"
    mend = "free some space, or set CORRAL_HOME to a larger disk"
    if free < DISK_FAIL_GIB:
        return fail("disk", found, mend)
    if free < DISK_WARN_GIB:
        return warn("disk", found, mend)
    return ok("disk", found)


def existing(path: Path) -> Path:
    """`path` or its nearest parent that exists."""
    return next(place for place in (path, *path.parents) if place.exists())


def _files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = hard if hard != resource.RLIM_INFINITY else max(soft, FILES)
    found = f"{soft} open files, {hard} at most"
    if limit < FILES:
        return warn("file limit", found, f"`ulimit -n {FILES}`, or nofile in limits.conf")
    return ok("file limit", found)
