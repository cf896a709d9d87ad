"""The process of one step: reads its task, measures, writes what it found.

    python -m benchmarks.gpu.step TASK.json RESULT.json

Exit status 0, or 1 with the cause in the result file. Dies with the process that began it.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, assert_never

from pydantic import TypeAdapter

from benchmarks.gpu.config import RunConfig
from benchmarks.gpu.context import Context, Missing
from benchmarks.gpu.steps import (
    adapters,
    ceilings,
    client,
    cold_start,
    embeddings,
    prefix_cache,
    serving,
    sleep,
    training,
    tuning,
)
from benchmarks.report import write

_PR_SET_PDEATHSIG = 1


def run(config: RunConfig, context: Context) -> dict[str, Any]:
    """The result of one step."""
    match config:
        case ceilings.CeilingsConfig():
            return ceilings.run(config, context)
        case client.ClientConfig():
            return client.run(config, context)
        case serving.ServingConfig():
            return serving.run(config, context)
        case adapters.AdaptersConfig():
            return adapters.run(config, context)
        case training.TrainingConfig():
            return training.run(config, context)
        case prefix_cache.PrefixConfig():
            return prefix_cache.run(config, context)
        case sleep.SleepConfig():
            return sleep.run(config, context)
        case cold_start.ColdStartConfig():
            return cold_start.run(config, context)
        case embeddings.EmbeddingsConfig():
            return embeddings.run(config, context)
        case tuning.VariantConfig():
            return tuning.run_variant(config, context)
        case tuning.BestConfig():
            return tuning.run_best(config, context)
        case _:
            assert_never(config)


def main() -> int:
    task_path, result_path = Path(sys.argv[1]), Path(sys.argv[2])
    task = json.loads(task_path.read_text(encoding="utf-8"))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != task["parent"]:
        return 1

    def save(status: str, result: dict[str, Any], cause: str = "") -> None:
        staging = result_path.with_suffix(".new")
        write(staging, {"status": status, "cause": cause, "result": result})
        staging.replace(result_path)

    kept: dict[str, Any] = {}

    def keep(result: dict[str, Any]) -> None:
        kept.update(result)
        save("partial", result)

    try:
        config: RunConfig = TypeAdapter(RunConfig).validate_python(task["run"])
        save("ok", run(config, Context.from_task(task, keep)))
    except Missing as exc:
        save("missing", kept, str(exc))
    except Exception as exc:
        traceback.print_exc()
        save("failed", kept, f"{type(exc).__name__}: {exc}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
