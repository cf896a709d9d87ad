"""`OverheadConfig`: one model, served by corral and by vLLM's own server with the same flags."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from benchmarks.sides import SideConfig, home_credentials
from configs import ConfigError, StrictModel

__all__ = ["OverheadConfig", "sides", "vllm_environment", "vllm_flags"]


class OverheadConfig(StrictModel):
    """One comparison."""

    serve_config: str = "configs/serve/local.yaml"
    """What corral serves; vLLM's flags are read from it too."""
    model: str = "smollm2-135m"
    weights: str = ""
    """Directory of the model; by default `$CORRAL_HOME/models/<model>`."""
    streams: int = Field(16, ge=1)
    max_tokens: int = Field(128, ge=1)
    rounds: int = Field(3, ge=1)
    duration_s: float = Field(30.0, gt=0)
    warmup_s: float = Field(10.0, ge=0)
    bar: float = 0.97
    """Share of vLLM's own output tokens a second that corral must reach."""
    neighbours: int = Field(0, ge=0)
    """Processes that keep a core busy each beside whatever is measured."""
    start_timeout_s: float = 400.0
    corral_overrides: tuple[str, ...] = ()
    """More `--set` values for `corral serve`."""


def sides(config: OverheadConfig) -> list[SideConfig]:
    """vLLM's server and corral, in that order. Raises ConfigError if the weights are missing."""
    weights = Path(config.weights or _home() / "models" / config.model)
    if not (weights / "config.json").exists():
        raise ConfigError(f"no model in {weights}: prepare it with `corral serve`, or set weights")
    engine = _engine(config)
    overrides = ("gateway.port={port}", *config.corral_overrides)
    sets = [word for override in overrides for word in ("--set", override)]
    serve = ["{python}", "-m", "serving.cli", "serve", "--config", config.serve_config, *sets]
    flags = [f"--model={weights}", f"--served-model-name={config.model}", *vllm_flags(engine)]
    server = ["{python}", "-m", "vllm.entrypoints.openai.api_server", "--host=127.0.0.1"]
    common = {"model": config.model, "start_timeout_s": config.start_timeout_s}
    return [
        SideConfig(
            name="vllm",
            command=(*server, "--port={port}", *flags),
            env=vllm_environment(engine),
            **common,
        ),
        SideConfig(
            name="corral",
            command=tuple(serve),
            ready="/ready",
            credentials=home_credentials(),
            **common,
        ),
    ]


def vllm_environment(engine: dict[str, Any]) -> dict[str, str]:
    """What corral tells vLLM by the environment, for vLLM's own server."""
    uni = (engine.get("extra_args") or {}).get("distributed_executor_backend") == "uni"
    threads = engine.get("omp_threads") or len(os.sched_getaffinity(0))
    return {
        "OMP_NUM_THREADS": str(threads),
        "VLLM_CPU_KVCACHE_SPACE": str(engine.get("cpu_kv_cache_gib", 1)),
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0" if uni else "1",
    }


def vllm_flags(engine: dict[str, Any]) -> list[str]:
    """The engine of a serve configuration as options of vLLM's server.

    The fields carry vLLM's own names but for those named here.
    """
    own = {"kind", "task", "lora", "extra_args", "cpu_kv_cache_gib", "omp_threads"}
    options = {name: value for name, value in engine.items() if name not in own}
    if engine.get("tool_call_parser"):
        options["enable_auto_tool_choice"] = True
    lora = engine.get("lora") or {}
    if lora.get("max_loras"):
        options |= {
            "enable_lora": True,
            "max_loras": lora["max_loras"],
            "max_cpu_loras": lora.get("max_cpu_loras", 32),
            "max_lora_rank": lora.get("max_rank", 64),
        }
    options |= engine.get("extra_args") or {}
    return [
        _flag(name.replace("_", "-"), value) for name, value in options.items() if value is not None
    ]


def _flag(name: str, value: Any) -> str:
    match value:
        case bool():
            return f"--{name}" if value else f"--no-{name}"
        case dict() | list():
            return f"--{name}={json.dumps(value)}"
        case _:
            return f"--{name}={value}"


def _engine(config: OverheadConfig) -> dict[str, Any]:
    try:
        served = yaml.safe_load(Path(config.serve_config).read_text())["models"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as exc:
        raise ConfigError(f"cannot read the models of {config.serve_config}: {exc}") from exc
    for model in served:
        if model["name"] == config.model:
            return dict(model["engine"])
    raise ConfigError(f"{config.serve_config} serves no model called {config.model!r}")


def _home() -> Path:
    return Path(os.environ.get("CORRAL_HOME") or "~/.corral").expanduser()
