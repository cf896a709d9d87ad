"""Keeps Serve's inner gRPC servers on the loopback interface when the cluster is one machine.

Every replica opens one for handle calls, on all interfaces and without a setting for
it. Calls there need Ray's token, but a port that nobody outside needs is better closed.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.serve._private import replica as serve_replica


def confine() -> None:
    """Call in a replica's constructor, which runs before Serve opens the port."""
    if ray.util.get_node_ip_address() not in ("127.0.0.1", "::1"):
        return
    add_port = serve_replica.add_port_to_grpc_server

    def add_loopback_port(server: Any, address: str) -> Any:
        return add_port(server, address.replace("[::]:", "127.0.0.1:"))

    serve_replica.add_port_to_grpc_server = add_loopback_port
