"""Makes Serve's HAProxy fit to stand in front: nothing but the API on an outside address.

Serve writes HAProxy's configuration itself and binds its statistics and metrics to
every interface. It also lets the operator name the binary, so corral names a small
script that edits the written file and then becomes HAProxy: statistics and metrics
move to sockets in the runtime directory, which only this user can open. A client may
not tell Serve to go on without it, and nothing is spliced: HAProxy does not see the
client leave while a body that it spliced is being answered.
"""

from __future__ import annotations

import resource
import shlex
import socket
from pathlib import Path

MAX_CONNECTIONS = 16384

_SCRIPT = """#!/bin/sh
# Written by `corral serve`. Edits the configuration Serve wrote, then runs HAProxy on it.
previous=
for argument in "$@"; do
    [ "$previous" = "-f" ] && config=$argument
    previous=$argument
done
sed -i \\
    -e '/^frontend prometheus/,/^frontend http/s|^\\( *bind\\) :.*|\\1 {metrics} mode 600|' \\
    -e '/^listen stats/,$s|^\\( *bind\\) .*|\\1 {statistics} mode 600|' \\
    -e '/^    http-request del-header x-request-disconnect-disabled$/d' \\
    -e '/^frontend http_frontend/a\\    http-request del-header x-request-disconnect-disabled' \\
    -e '/^ *option splice-/d' \\
    -e 's/mode 666 level admin/mode 600 level admin/' \\
    -e 's/^ *log .* local0 info$//' \\
    -e 's|^\\( *errorfile 50[234]\\) .*|\\1 {directory}/unavailable.http|' \\
    "$config"
exec {binary} "$@"
"""

_UNAVAILABLE = (
    "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n"
    "cache-control: no-cache\r\nretry-after: 5\r\nconnection: close\r\n\r\n"
    '{"error":{"message":"the gateway is starting or gone; try again","type":'
    '"service_unavailable_error","param":null,"code":"gateway_unavailable"}}'
)


def write_launcher(directory: Path, binary: str) -> Path:
    """Write the script into `directory`; its path belongs in RAY_SERVE_HAPROXY_BINARY_PATH."""
    (directory / "unavailable.http").write_bytes(_UNAVAILABLE.encode())
    script = directory / "haproxy"
    text = _SCRIPT.format(
        directory=directory,
        metrics=directory / "haproxy-metrics.http",
        statistics=directory / "haproxy-stats.http",
        binary=shlex.quote(binary),
    )
    script.write_text(text, encoding="utf-8")
    script.chmod(0o700)
    return script


def environment(directory: Path, script: Path, *, http_threads: int) -> dict[str, str]:
    """What Serve reads at import to run HAProxy this way."""
    return {
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(script),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(directory / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(directory / "haproxy.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(directory),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(directory / "haproxy-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(directory / "haproxy-metrics.sock"),
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_NBTHREAD": str(http_threads),
        "RAY_SERVE_HAPROXY_MAXCONN": str(_max_connections()),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "60",
    }


def free_port() -> int:
    """A TCP port on the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _max_connections() -> int:
    """Client connections HAProxy may hold: each takes two and a half descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(64, min(MAX_CONNECTIONS, (hard - 512) // 3))
