"""Tokens a second, and where that figure comes from."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from finetune.config import FinetuneConfig
from finetune.plan.devices import Device
from finetune.plan.memory import Arithmetic
from finetune.plan.shape import BaseShape
from finetune.plan.workload import Workload

# Shares of the data sheet's rate that training reaches, recomputation counted as work. bf16: NeMo's
# 12,473 tokens/s of an 8B model on an H100 (4096 packed) are 40 % at 4 FLOP a weight and token.
_GPU_SHARE: dict[Arithmetic, float] = {"bf16": 0.40, "nf4": 0.30, "fp32": 0.05}
# Of the rate of a large matrix product in numpy on the same cores.
_CPU_SHARE: dict[Arithmetic, float] = {"bf16": 0.15, "nf4": 0.25, "fp32": 0.50}
_UNKNOWN_GPU_FLOP_S = 60e12
_PROBE_SIZE = 1024
_PROBE_S = 0.3


@dataclass(frozen=True)
class Rate:
    """Of one worker."""

    tokens_per_second: float
    source: str
    """How it was found."""


@dataclass(frozen=True)
class Time:
    """Seconds by phase; not counted is answering prompts in the evaluation."""

    start_s: float
    train_s: float
    validation_s: float

    @property
    def total_s(self) -> float:
        """All."""
        return self.start_s + self.train_s + self.validation_s


def declared_rate(
    config: FinetuneConfig,
    shape: BaseShape,
    work: Workload,
    device: Device,
    precision: Arithmetic,
    probed_flop_s: float | None = None,
) -> Rate:
    """From the device's class, or for a CPU from a probe of it (`probed_flop_s`, else made now)."""
    if device.kind == "cpu":
        speed = probed_flop_s or probe_cpu()
        share = _CPU_SHARE[precision]
        source = f"a matrix product here ran at {speed / 1e9:.0f} GFLOP/s; {share:.0%} of that"
    else:
        speed, share = device.peak_flop_s or _UNKNOWN_GPU_FLOP_S, _GPU_SHARE[precision]
        known = "of its data sheet" if device.peak_flop_s else "assumed for an unknown GPU"
        source = f"{share:.0%} of {speed / 1e12:.0f} TFLOP/s {known}, for {precision}"
    return Rate(speed * share / flop_per_token(config, shape, work), source)


def flop_per_token(config: FinetuneConfig, shape: BaseShape, work: Workload) -> float:
    """Of training: two for each weight forward, and two for the gradient of its input, since
    frozen weights have none; again two where activations are computed anew."""
    learnt = work.learnt / max(1, work.tokens)
    weights = shape.linear_parameters + shape.vocab * shape.hidden * learnt
    length = work.tokens / max(1, work.examples)
    attention = 6 * length * shape.queries * shape.layers
    passes = 4 + (2 if config.train.gradient_checkpointing else 0) + 2 * work.reference_passes
    return passes * weights + attention


def estimate_time(
    config: FinetuneConfig, shape: BaseShape, work: Workload, rate: Rate, weight_bytes: int
) -> Time:
    """Start: libraries, and 1 GB of weights a second. Validation: forward only."""
    forward = 2 * shape.parameters / flop_per_token(config, shape, work)
    seconds = 1 / rate.tokens_per_second
    return Time(
        start_s=12 + weight_bytes / 1e9,
        train_s=work.trained_tokens * seconds / config.train.workers,
        validation_s=work.evaluations * work.validation_tokens * forward * seconds,
    )


def probe_cpu() -> float:
    """FLOP/s of float32 matrix products on this process's cores, in about half a second."""
    left = np.ones((_PROBE_SIZE, _PROBE_SIZE), dtype=np.float32)
    left @ left
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < _PROBE_S:
        left @ left
        done += 1
    return done * 2 * _PROBE_SIZE**3 / elapsed
