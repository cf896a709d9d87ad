"""The steps from a process's start to its first token, from the starts of this measurement."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from benchmarks.gpu.context import Context, Missing
from configs import StrictModel

__all__ = ["ColdStartConfig", "parse", "run"]

MARKS = {
    "imports": re.compile(r"(?i)vllm api server version|: loading|non-default args"),
    "engine process": re.compile(r"(?i)initializing a v1 llm engine"),
    "model start": re.compile(r"(?i)starting to load model"),
    "weights": re.compile(r"(?i)model loading took|loading weights took"),
    "compilation": re.compile(r"(?i)torch\.compile took"),
    "profile, KV cache": re.compile(r"(?i)(gpu|cpu) kv cache size"),
    "CUDA graphs": re.compile(r"(?i)graph capturing finished"),
    "engine": re.compile(r"(?i)init engine .* took"),
    "server": re.compile(r"(?i)application startup complete|starting vllm|: ready"),
}
"""Lines of vLLM 0.26 and 0.32 and of corral that end a step of the start."""


class ColdStartConfig(StrictModel):
    """Takes no time of its own."""

    kind: Literal["cold_start"] = "cold_start"


def run(_: ColdStartConfig, context: Context) -> dict[str, Any]:
    """One row for every engine that was started, each step with its end in seconds."""
    records = [json.loads(path.read_text()) for path in (context.out / "engines").glob("*.json")]
    if not records:
        raise Missing("no engine was started in this folder; run a step that needs one before")
    return {
        "method": "when each line appeared in the process's output, polled ten times a second; "
        "the first engine of a folder compiles, later ones of the same shapes find its cache",
        "rows": [
            {
                "engine": record["engine"],
                "side": record["side"],
                "steps": parse(record["phases"]),
                "ready_s": record["ready_s"],
                "first_token_s": record["first_token_s"],
            }
            for record in sorted(records, key=lambda record: str(record["engine"]))
        ],
    }


def parse(phases: Iterable[Sequence[Any]]) -> dict[str, float]:
    """The last time at which each step's line appeared, in seconds since the start."""
    found: dict[str, float] = {}
    for at, line in phases:
        for step, mark in MARKS.items():
            if mark.search(line):
                found[step] = at
    return dict(sorted(found.items(), key=lambda item: item[1]))
