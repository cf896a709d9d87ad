"""An engine's configuration as the options and the environment that vLLM's own server takes."""

from __future__ import annotations

import json
import os
from typing import Any

from serving.config import VllmConfig
from serving.engines.base import EngineSpec

GOMP_SPINCOUNT = 10_000
"""As fast as the default on an idle machine: `python -m benchmarks.engine_overhead`."""
LORA_WORKER = "serving.engines.vllm.LoraWorker"
"""Joins vLLM's worker class where adapters are served."""


def command_line(spec: EngineSpec, config: VllmConfig) -> list[str]:
    """The options `vllm serve` would be given for this model."""
    options: dict[str, Any] = {
        "model": str(spec.weights),
        "served-model-name": spec.model,
        "dtype": config.dtype,
        "max-model-len": config.max_model_len,
        "max-num-seqs": config.max_num_seqs,
        "max-num-batched-tokens": config.max_num_batched_tokens,
        "tensor-parallel-size": config.tensor_parallel_size,
        "gpu-memory-utilization": config.gpu_memory_utilization,
        "kv-cache-dtype": config.kv_cache_dtype,
        "quantization": config.quantization,
        "load-format": config.load_format,
        "enforce-eager": config.enforce_eager,
        "enable-prefix-caching": config.enable_prefix_caching,
        "enable-chunked-prefill": config.enable_chunked_prefill,
        "tool-call-parser": config.tool_call_parser,
        "enable-auto-tool-choice": True if config.tool_call_parser else None,
        "reasoning-parser": config.reasoning_parser,
        "chat-template": config.chat_template,
        "runner": "pooling" if config.task == "pooling" else None,
        "disable-fastapi-docs": True,
        "enable-prompt-tokens-details": True,
    }
    if config.lora.enabled:
        options |= {
            "enable-lora": True,
            "max-loras": config.lora.max_loras,
            "max-cpu-loras": max(config.lora.max_cpu_loras, config.lora.max_loras),
            "max-lora-rank": _lora_rank_step(config.lora.max_rank),
            "worker-extension-cls": LORA_WORKER,
        }
    options |= {key.replace("_", "-"): value for key, value in config.extra_args.items()}
    argv: list[str] = []
    for name, value in options.items():
        if value is None:
            continue
        if isinstance(value, bool):
            argv.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, dict | list):
            argv += [f"--{name}", json.dumps(value)]
        else:
            argv += [f"--{name}", str(value)]
    return argv


def _lora_rank_step(rank: int) -> int:
    """The smallest rank vLLM has kernels for that holds `rank`."""
    steps = (1, 8, 16, 32, 64, 128, 256, 320, 512)
    return next((step for step in steps if step >= rank), steps[-1])


def environment(config: VllmConfig) -> dict[str, str]:
    """What vLLM reads from the environment when it is imported."""
    settings = {
        "VLLM_CPU_KVCACHE_SPACE": str(config.cpu_kv_cache_gib),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_CONFIGURE_LOGGING": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    if config.extra_args.get("distributed_executor_backend") == "uni":
        # On a CPU vLLM grants `uni` only so; the engine keeps its own process all the same.
        settings["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    return settings


def cpu_environment(config: VllmConfig) -> dict[str, str]:
    """What OpenMP reads when a model runs on a CPU.

    A thread that waits for the others spins for a moment, then sleeps. By libgomp's default it
    spins so long that one busy process beside the engine takes nine tenths of its speed.
    """
    return {
        "OMP_NUM_THREADS": str(config.omp_threads or len(os.sched_getaffinity(0))),
        "GOMP_SPINCOUNT": str(GOMP_SPINCOUNT),
    }
