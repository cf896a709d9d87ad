"""How many streamed tokens a second the load client takes in: the ceiling of all other figures."""

from __future__ import annotations

from typing import Any, Literal

from benchmarks.gpu.context import Context
from benchmarks.gpu.steps.levels import Level, check, row, run_level, workload_of
from configs import StrictModel

__all__ = ["ClientConfig", "run"]


class ClientConfig(StrictModel):
    """A load on an engine that computes nothing."""

    kind: Literal["client"] = "client"
    input_tokens: int = 1000
    output_tokens: int = 1000
    level: Level
    seed: int = 6


def run(config: ClientConfig, context: Context) -> dict[str, Any]:
    """Chunks a second at which the client would fill its core, from the CPU time of one."""
    engine = context.engines[0]
    workload = workload_of(context, config.input_tokens, config.seed)
    load = run_level(engine, config.level, workload, config.output_tokens).load
    found = row(engine, [load])
    check([found])
    return {
        "method": "chunks received over the client's own CPU time, prompts being drawn included",
        "ceiling_chunks_s": load.client_ceiling,
        "cpu_us_per_chunk": load.client_cpu_us_per_chunk,
        "row": found,
    }
