"""The Ray cluster that `corral serve` starts for itself, without what one machine has no use for.

`ray.init` offers no switch for these; its parameters do, so they are set there:
the autoscaler's monitor (no nodes to add), the log monitor (no logs are forwarded),
and the dashboard agent's fixed port (two stacks on one machine would fight over it).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray._private import parameter


def options(temp_dir: str, object_store_mib: int) -> dict[str, Any]:
    """Arguments of `ray.init` for a cluster of this machine, on the loopback interface."""
    return {
        "address": "local",
        "include_dashboard": False,
        "object_store_memory": object_store_mib * 2**20,
        "_node_ip_address": "127.0.0.1",
        "_temp_dir": temp_dir,
    }


@contextmanager
def lean() -> Iterator[None]:
    """While it lasts, `ray.init` starts a cluster without the processes named above."""
    original = parameter.RayParams
    parameter.RayParams = functools.partial(
        original, no_monitor=True, include_log_monitor=False, dashboard_agent_listen_port=0
    )
    try:
        yield
    finally:
        parameter.RayParams = original
