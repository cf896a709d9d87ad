"""`corral status`: replicas, adapters, tokens per second and KV cache."""

from __future__ import annotations

import time
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from serving.commands.client import base_url, call
from serving.home import Home

RATE_WINDOW_S = 1.0
_GENERATED = "vllm:generation_tokens_total"
_KV_CACHE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")


def show(home: Home, url: str | None, console: Console) -> bool:
    """Print a table of all replicas; False when some model does not generate."""
    before = _tokens(call(home, url, "GET", "/admin/status"))
    time.sleep(RATE_WINDOW_S)
    status = call(home, url, "GET", "/admin/status")
    ready = _ready(home, url)
    console.print(f"{base_url(home, url)}  {'ready' if ready else '[red]not ready[/red]'}")
    table = Table("model", "replica", "running", "tokens/s", "KV cache", "adapters")
    after = _tokens(status)
    for replica in status["replicas"]:
        key = replica["replica"]
        rate = (after.get(key, 0.0) - before.get(key, after.get(key, 0.0))) / RATE_WINDOW_S
        usage = _sample(replica["metrics"], *_KV_CACHE)
        table.add_row(
            replica["model"],
            key,
            str(replica["running"]),
            f"{rate:.0f}",
            "–" if usage is None else f"{usage:.1%}",
            ", ".join(replica["adapters"]) or "–",
        )
    console.print(table)
    return ready


def _ready(home: Home, url: str | None) -> bool:
    from serving.errors import CorralError

    try:
        return bool(call(home, url, "GET", "/ready")["ready"])
    except CorralError:
        return False


def _tokens(status: dict[str, Any]) -> dict[str, float]:
    return {
        replica["replica"]: _sample(replica["metrics"], _GENERATED) or 0.0
        for replica in status["replicas"]
    }


def _sample(text: str, *names: str) -> float | None:
    """Sum over all samples of the first of `names` that occurs."""
    for name in names:
        values = [
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        ]
        if values:
            return sum(values)
    return None
