"""Makes Serve's HAProxy fit to stand in front: nothing but the API on an outside address.

Serve writes HAProxy's configuration itself and binds its statistics and metrics to
every interface. It also lets the operator name the binary, so corral names a small
script that edits the written file and then becomes HAProxy: statistics and metrics
move to sockets in the runtime directory, which only this user can open. A client may
not tell Serve how to treat its request, and nothing is spliced: HAProxy does not see the
client leave while a body that it spliced is being answered. Limits on headers and time,
request ids and TLS are HAProxy's own, by `GatewayConfig.http` and `.tls`.
"""

from __future__ import annotations

import os
import resource
import shlex
import socket
import ssl
from pathlib import Path

from serving.errors import StartError
from serving.gateway.door_config import HttpLimits, TlsConfig

MAX_CONNECTIONS = 16384
REWRITE_BYTES = 1024
"""HAProxy's `tune.maxrewrite`: what it keeps free of a buffer to add headers."""

_SCRIPT = """#!/bin/sh
# Written by `corral serve`. Edits the configuration Serve wrote, then runs HAProxy on it.
previous=
for argument in "$@"; do
    [ "$previous" = "-f" ] && config=$argument
    previous=$argument
done
sed -i \\
    -e '/^ *# corral: begin$/,/^ *# corral: end$/d' \\
    -e '/^frontend prometheus/,/^frontend http/s|^\\( *bind\\) :.*|\\1 {metrics} mode 600|' \\
    -e '/^listen stats/,$s|^\\( *bind\\) .*|\\1 {statistics} mode 600|' \\
    -e '/^frontend http_frontend/,/^backend /s|^\\( *bind [^ ]*\\).*|\\1{tls}|' \\
    -e '/^ *option splice-/d' \\
    -e '/^ *timeout client /d' \\
    -e '/^ *timeout http-request /d' \\
    -e '/^ *timeout http-keep-alive /d' \\
    -e 's/^\\( *tune.bufsize\\) .*/\\1 {bufsize}/' \\
    -e 's/mode 666 level admin/mode 600 level admin/' \\
    -e 's/^ *log .* local0 info$//' \\
    -e 's|^\\( *errorfile 50[234]\\) .*|\\1 {directory}/unavailable.http|' \\
    -e '/^global$/r {directory}/global.cfg' \\
    -e '/^defaults$/r {directory}/defaults.cfg' \\
    -e '/^frontend http_frontend$/r {directory}/frontend.cfg' \\
    "$config"
exec {binary} "$@"
"""

_GLOBAL = """    # corral: begin
    tune.http.maxhdr {max_headers}
    tune.maxrewrite {rewrite}
    # corral: end
"""

_DEFAULTS = """    # corral: begin
    timeout http-request {head}s
    timeout client {idle}s
    timeout http-keep-alive {keep_alive}s
    errorfile 400 {directory}/bad-request.http
    errorfile 408 {directory}/too-slow.http
    # corral: end
"""

_FRONTEND = """    # corral: begin
    http-request del-header x-request-disconnect-disabled
    http-request del-header x-request-timeout-seconds
    http-request del-header serve_multiplexed_model_id
    http-request del-header serve-multiplexed-model-id
    http-request del-header x-session-id
    acl one_id req.fhdr_cnt(x-request-id) eq 1
    acl good_id req.fhdr(x-request-id) -m reg ^[A-Za-z0-9._-]{1,128}$
    http-request set-header x-request-id %[uuid] unless one_id good_id
    http-request set-var(txn.request_id) req.fhdr(x-request-id)
    http-after-response set-header x-request-id %[var(txn.request_id)] if { var(txn.request_id) -m found }
    http-after-response set-header x-content-type-options nosniff
    http-after-response del-header server
    # corral: end
"""  # noqa: E501

_TLS = " ssl crt {certificate} alpn http/1.1 ssl-min-ver TLSv1.2"


def _answer(status: str, kind: str, code: str, message: str, *extra: str) -> bytes:
    """What HAProxy says by itself, in OpenAI's envelope."""
    body = f'{{"error":{{"message":"{message}","type":"{kind}","param":null,"code":"{code}"}}}}'
    head = [
        f"HTTP/1.1 {status}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
        "connection: close",
        *extra,
    ]
    return ("\r\n".join([*head, "", ""]) + body).encode()


_ANSWERS = {
    "unavailable.http": _answer(
        "503 Service Unavailable",
        "service_unavailable_error",
        "gateway_unavailable",
        "the gateway is starting or gone; try again",
        "retry-after: 5",
    ),
    "bad-request.http": _answer(
        "400 Bad Request",
        "invalid_request_error",
        "bad_request",
        "not a valid HTTP request, or its headers are too many or too large",
    ),
    "too-slow.http": _answer(
        "408 Request Timeout",
        "invalid_request_error",
        "request_timeout",
        "the request's headers took too long",
    ),
}


def write_launcher(
    directory: Path,
    binary: str,
    limits: HttpLimits = HttpLimits(),  # noqa: B008
    tls: TlsConfig = TlsConfig(),  # noqa: B008
) -> Path:
    """Write the script into `directory`; its path belongs in RAY_SERVE_HAPROXY_BINARY_PATH.

    Raises StartError when the certificate cannot be used.
    """
    for name, answer in _ANSWERS.items():
        (directory / name).write_bytes(answer)
    pem = _write_certificate(directory, tls) if tls.enabled else None
    pieces = {
        "global.cfg": _GLOBAL.format(max_headers=limits.max_headers, rewrite=REWRITE_BYTES),
        "defaults.cfg": _DEFAULTS.format(
            directory=directory,
            head=limits.head_timeout_s,
            idle=limits.idle_timeout_s,
            keep_alive=limits.keep_alive_s,
        ),
        "frontend.cfg": _FRONTEND,
    }
    for name, text in pieces.items():
        (directory / name).write_text(text, encoding="utf-8")
    script = directory / "haproxy"
    text = _SCRIPT.format(
        directory=directory,
        metrics=directory / "haproxy-metrics.http",
        statistics=directory / "haproxy-stats.http",
        bufsize=limits.max_header_bytes + REWRITE_BYTES,
        tls=_TLS.format(certificate=pem) if pem else "",
        binary=shlex.quote(binary),
    )
    script.write_text(text, encoding="utf-8")
    script.chmod(0o700)
    return script


def check_certificate(tls: TlsConfig) -> None:
    """Whether certificate and key can be read and belong together. Raises StartError."""
    assert tls.certificate is not None
    assert tls.key is not None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            tls.certificate, tls.key, password=_no_passphrase
        )
    except FileNotFoundError as exc:
        missing = next((p for p in (tls.certificate, tls.key) if not Path(p).exists()), "?")
        raise StartError(
            f"TLS: there is no file {missing}",
            "Correct gateway.tls.certificate and gateway.tls.key.",
        ) from exc
    except ssl.SSLError as exc:
        why, advice = (
            str(exc),
            "Both must be PEM files: the certificate with its chain, and its key.",
        )
        if exc.reason == "KEY_VALUES_MISMATCH":
            why, advice = (
                "they do not belong together",
                "Name the key the certificate was made for.",
            )
        raise StartError(f"TLS: {tls.certificate} and {tls.key}: {why}", advice) from exc
    except (OSError, ValueError) as exc:
        raise StartError(
            f"TLS: {tls.certificate} and {tls.key}: {exc}",
            "Let this user read both; a key with a passphrase cannot be used.",
        ) from exc


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase")


def _write_certificate(directory: Path, tls: TlsConfig) -> Path:
    """Certificate and key in one file, as HAProxy wants them, for this user only."""
    check_certificate(tls)
    pem = directory / "gateway.pem"
    handle = os.open(pem, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        for source in (tls.certificate, tls.key):
            file.write(Path(str(source)).read_bytes().rstrip() + b"\n")
    return pem


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
