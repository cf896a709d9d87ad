"""What computes: this machine's GPU or CPU, or a class of device that is named instead."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from finetune.errors import FinetuneError
from finetune.plan.memory import Kind

GIB = 1 << 30


@dataclass(frozen=True)
class Device:
    """One device of `count` equal ones, and its host."""

    kind: Kind
    name: str
    memory_bytes: int
    """Free for the run; of a CPU the host's."""
    host_bytes: int
    """Free on the host."""
    count: int = 1
    bf16: bool = True
    """Whether it multiplies bfloat16 in hardware."""
    peak_flop_s: float | None = None
    """Dense bf16 rate by the vendor's data sheet; None if unknown."""


@dataclass(frozen=True)
class DeviceClass:
    """What a vendor's data sheet says of one GPU."""

    name: str
    """As CUDA calls it, or a part of that."""
    memory_gib: float
    peak_flop_s: float
    """Dense bf16 (on the T4: fp16)."""
    bf16: bool = True


# NVIDIA's data sheets: memory, and dense tensor-core rates of bf16.
CLASSES = {
    "b200": DeviceClass("B200", 178, 2250e12),
    "h200": DeviceClass("H200", 139, 989e12),
    "h100": DeviceClass("H100", 79, 989e12),
    "a100-80": DeviceClass("A100-SXM4-80GB", 79, 312e12),
    "a100-40": DeviceClass("A100-SXM4-40GB", 39, 312e12),
    "l40s": DeviceClass("L40S", 44, 362e12),
    "rtx-5090": DeviceClass("RTX 5090", 31, 209e12),
    "rtx-4090": DeviceClass("RTX 4090", 23.5, 165e12),
    "l4": DeviceClass("L4", 22, 121e12),
    "a10g": DeviceClass("A10G", 22, 70e12),
    "t4": DeviceClass("T4", 14.6, 65e12, bf16=False),
}


def named_device(name: str, count: int = 1) -> Device:
    """A class of GPU, all of its memory free, in a host that has enough. Raises FinetuneError."""
    found = CLASSES.get(name)
    if found is None:
        raise FinetuneError(f"no device class {name!r}: cpu, or one of {', '.join(CLASSES)}")
    memory = round(found.memory_gib * GIB)
    return Device("cuda", found.name, memory, 2**62, count, found.bf16, found.peak_flop_s)


def this_machine(*, cpu: bool = False) -> Device:
    """The first GPU as it is now, or without one, or with `cpu`, the CPU."""
    host = free_host_bytes()
    if not cpu and _may_have_gpu():
        found = _gpu(host)
        if found is not None:
            return found
    cores = len(os.sched_getaffinity(0))
    return Device("cpu", f"CPU, {cores} cores", host, host, bf16=_has_amx())


def _has_amx() -> bool:
    """Whether the CPU multiplies bf16 in tiles: without them bf16 is slower than fp32."""
    try:
        return "amx_tile" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def free_host_bytes() -> int:
    """Free memory, or what a container's limit leaves of it."""
    free = int(psutil.virtual_memory().available)
    limit, used = (_cgroup(f"memory.{name}") for name in ("max", "current"))
    if limit is not None and used is not None:
        cached = _cgroup_cache()
        free = min(free, max(0, limit - used + cached))
    return free


def _cgroup(name: str) -> int | None:
    try:
        text = Path("/sys/fs/cgroup", name).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _cgroup_cache() -> int:
    """Pages of files, which the kernel gives up when memory is short."""
    try:
        text = Path("/sys/fs/cgroup/memory.stat").read_text(encoding="ascii")
    except OSError:
        return 0
    found = dict(line.split() for line in text.splitlines())
    return int(found.get("inactive_file", 0))


def _may_have_gpu() -> bool:
    """Without loading torch: whether there is a driver at all."""
    return Path("/dev/nvidiactl").exists() and os.environ.get("CUDA_VISIBLE_DEVICES") != ""


def _gpu(host: int) -> Device | None:
    import torch

    if not torch.cuda.is_available():
        return None
    free, _ = torch.cuda.mem_get_info()
    facts: Any = torch.cuda.get_device_properties(0)
    known = [each for each in CLASSES.values() if each.name.lower() in facts.name.lower()]
    # "A100-SXM4-80GB" is none of "L4"; of several the longest name is meant.
    best = max(known, key=lambda each: len(each.name), default=None)
    return Device(
        "cuda",
        facts.name,
        int(free),
        host,
        torch.cuda.device_count(),
        facts.major >= 8,
        None if best is None else best.peak_flop_s,
    )
