"""Copy bandwidth and matrix rate of this machine's accelerator, or of its CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any, Literal

from pydantic import Field

from benchmarks.gpu.context import Context
from configs import StrictModel

__all__ = ["CeilingsConfig", "run"]

FP8_MAX = 448.0
"""Largest value of float8_e4m3fn."""


class CeilingsConfig(StrictModel):
    """Sizes well above the caches, so that memory and not the cache is measured."""

    kind: Literal["ceilings"] = "ceilings"
    copy_mib: int = Field(4096, ge=1)
    shapes: tuple[tuple[int, int, int], ...] = ((8192, 8192, 8192),)
    """M, N and K of the products."""
    repeats: int = Field(20, ge=1)
    warmup: int = Field(3, ge=0)


def run(config: CeilingsConfig, context: Context) -> dict[str, Any]:
    """GB/s, and TFLOP/s by type and shape; of each the median of `repeats`."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    timer = _cuda_seconds if device == "cuda" else _cpu_seconds
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "method": _METHOD[device],
        "copy": _copy(config, device, timer),
        "matmul": [],
    }
    kinds = ("bf16", "fp8") if device == "cuda" else ("bf16", "float32")
    for shape in config.shapes:
        for kind in kinds:
            row = _matmul(config, device, kind, shape, timer)
            result["matmul"].append(row)
            context.say(str(row))
            context.save(result)
    return result


_METHOD = {
    "cuda": "CUDA events around each call after a warm-up, median; random data; bytes read and "
    "bytes written both counted; fp8 is torch._scaled_mm: e4m3, one scale a tensor, fast "
    "accumulation, bf16 out",
    "cpu": "wall clock around each call after a warm-up, median; random data; bytes read and "
    "bytes written both counted",
}

Timer = Callable[[Callable[[], Any], int, int], list[float]]


def _copy(config: CeilingsConfig, device: str, timer: Timer) -> dict[str, Any]:
    import torch

    count = config.copy_mib * 2**20 // 2
    source = torch.randn(count, dtype=torch.bfloat16, device=device)
    target = torch.empty_like(source)
    seconds = median(timer(lambda: target.copy_(source), config.repeats, config.warmup))
    return {"mib": config.copy_mib, "seconds": seconds, "gb_s": 2 * 2 * count / seconds / 1e9}


def _matmul(
    config: CeilingsConfig, device: str, kind: str, shape: tuple[int, int, int], timer: Timer
) -> dict[str, Any]:
    m, n, k = shape
    row: dict[str, Any] = {"type": kind, "shape": list(shape)}
    try:
        product = _fp8(m, n, k) if kind == "fp8" else _plain(m, n, k, kind, device)
        seconds = timer(product, config.repeats, config.warmup)
    except (RuntimeError, AttributeError, TypeError) as exc:
        return {**row, "error": f"{type(exc).__name__}: {exc}"}
    middle = median(seconds)
    spread = [2e-12 * m * n * k / max(seconds), 2e-12 * m * n * k / min(seconds)]
    return {**row, "seconds": middle, "tflop_s": 2e-12 * m * n * k / middle, "spread": spread}


def _plain(m: int, n: int, k: int, kind: str, device: str) -> Callable[[], Any]:
    import torch

    dtype = torch.bfloat16 if kind == "bf16" else torch.float32
    left = torch.randn(m, k, dtype=dtype, device=device)
    right = torch.randn(k, n, dtype=dtype, device=device)
    out = torch.empty(m, n, dtype=dtype, device=device)
    return lambda: torch.matmul(left, right, out=out)


def _fp8(m: int, n: int, k: int) -> Callable[[], Any]:
    import torch

    def random(rows: int, columns: int) -> Any:
        values = torch.randn(rows, columns, device="cuda").clamp(-FP8_MAX, FP8_MAX)
        return values.to(torch.float8_e4m3fn)

    left, right = random(m, k), random(n, k).t()
    one = torch.ones((), device="cuda")
    options = {"scale_a": one, "scale_b": one, "out_dtype": torch.bfloat16}
    return lambda: torch._scaled_mm(left, right, **options, use_fast_accum=True)


def _cuda_seconds(call: Callable[[], Any], repeats: int, warmup: int) -> list[float]:
    import torch

    for _ in range(warmup):
        call()
    pairs = []
    for _ in range(repeats):
        begin = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        pairs.append((begin, end))
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) / 1e3 for begin, end in pairs]


def _cpu_seconds(call: Callable[[], Any], repeats: int, warmup: int) -> list[float]:
    for _ in range(warmup):
        call()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return seconds
