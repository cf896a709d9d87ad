"""`precision: auto`: bf16 where it fits, NF4 where it does not, fp32 without fast bf16."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from finetune.config import FinetuneConfig
from finetune.plan.devices import GIB, Device
from finetune.plan.memory import Arithmetic, Memory, estimate_memory
from finetune.plan.shape import BaseShape
from finetune.plan.workload import Workload

# Of the memory that is free: the rest is for what others take meanwhile.
USABLE = 0.95


@dataclass(frozen=True)
class Decision:
    """The arithmetic of a run."""

    precision: Arithmetic
    reason: str
    """One sentence."""
    memory: Memory
    """With it."""
    fits: bool
    """In the device and in the host."""


def decide(config: FinetuneConfig, shape: BaseShape, work: Workload, device: Device) -> Decision:
    """What is configured, or else the most exact that fits."""
    wanted = config.precision
    if wanted != "auto":
        return _decision(config, shape, work, device, wanted, "as configured")
    first: Arithmetic = "bf16" if device.bf16 else "fp32"
    memory = estimate_memory(config, shape, work, first, device.kind)
    need, have = memory.total / GIB, device.memory_bytes / GIB
    figures = f"it needs {need:.1f} of the {have:.1f} GiB that are free on {device.name}"
    if fits(memory, device) or importlib.util.find_spec("bitsandbytes") is None:
        why = {
            "bf16": f"bf16, since {figures}",
            "fp32": f"fp32, since {device.name} has no fast bf16 and {figures}",
        }[first]
        return _decision(config, shape, work, device, first, why)
    why = f"nf4, since in {first} {figures}"
    return _decision(config, shape, work, device, "nf4", why)


def fits(memory: Memory, device: Device) -> bool:
    """Whether device and host hold it."""
    inside = memory.total <= USABLE * device.memory_bytes
    return inside and memory.host <= USABLE * device.host_bytes


def _decision(
    config: FinetuneConfig,
    shape: BaseShape,
    work: Workload,
    device: Device,
    precision: Arithmetic,
    reason: str,
) -> Decision:
    memory = estimate_memory(config, shape, work, precision, device.kind)
    return Decision(precision, reason, memory, fits(memory, device))
