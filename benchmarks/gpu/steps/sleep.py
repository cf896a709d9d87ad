"""How long vLLM takes to give the card's memory back and to be ready again."""

from __future__ import annotations

import random
import time
from typing import Any, Literal

from benchmarks.gpu.context import Context
from benchmarks.gpu.hardware import gpus
from benchmarks.gpu.steps.http import first_token_s, post
from configs import StrictModel

__all__ = ["SleepConfig", "run"]


class SleepConfig(StrictModel):
    """Level 1 moves the weights to host memory, level 2 forgets them."""

    kind: Literal["sleep"] = "sleep"
    levels: tuple[Literal[1, 2], ...] = (1, 2)
    rounds: int = 2


def run(config: SleepConfig, context: Context) -> dict[str, Any]:
    """Seconds to sleep, to wake, and to the first token after; the card's memory meanwhile.

    The engine must be vLLM's own server with its development routes. After level 2 the
    weights are noise until they are loaded anew: with random weights that changes nothing.
    """
    engine = context.engines[0]
    draw = random.Random(4)
    rows: list[dict[str, Any]] = []
    for level in config.levels:
        for _ in range(config.rounds):
            awake = _memory()
            slept = _seconds(f"{engine.url}/sleep?level={level}")
            asleep = _memory()
            woke = _seconds(f"{engine.url}/wake_up")
            prompt = draw.choices(range(context.model.first_id, context.model.last_id), k=64)
            first = first_token_s(engine.url, engine.model, prompt, engine.headers)
            rows.append(
                {
                    "level": level,
                    "sleep_s": slept,
                    "wake_s": woke,
                    "first_token_s": first,
                    "memory_awake": awake,
                    "memory_asleep": asleep,
                }
            )
            context.say(str(rows[-1]))
            context.save({"rows": rows})
    return {"rows": rows}


def _seconds(url: str) -> float:
    began = time.perf_counter()
    post(url)
    return time.perf_counter() - began


def _memory() -> str:
    """Memory in use as the driver says it; empty without a card."""
    return ", ".join(card["memory.used"] for card in gpus())
