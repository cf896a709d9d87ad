from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from configs import parse
from serving.commands.doctor import Check, Status, render, run_checks
from serving.config import ServeConfig
from serving.doctor import machine
from serving.doctor.stack import packages
from serving.home import Home
from serving.models import BUILTINS, manifest
from tests.certificates import self_signed

FAKE: dict[str, Any] = {"name": "fake", "engine": {"kind": "fake"}}


def config(*models: dict[str, Any], **gateway: Any) -> ServeConfig:
    return parse(ServeConfig, {"gateway": gateway, "models": list(models or (FAKE,))})


def checked(home: Path, configuration: ServeConfig) -> dict[str, Check]:
    return {check.name: check for check in run_checks(Home(home), configuration)}


def test_importing_loads_no_heavy_module() -> None:
    code = (
        "import sys, serving.commands.doctor\n"
        "heavy = {'torch', 'transformers', 'vllm', 'ray', 'fastapi'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_failure_and_warning_has_a_mend(tmp_path: Path) -> None:
    broken = config(
        {**FAKE, "name": "absent", "source": "/no/such", "engine": {"kind": "vllm"}},
        {**FAKE, "name": "smollm2-135m", "engine": {"kind": "vllm"}},
    )
    checks = run_checks(Home(tmp_path), broken)
    assert {check.name for check in checks} >= {"Python", "GPU", "memory", "disk", "HAProxy"}
    assert all(check.mend for check in checks if check.status is not Status.OK)
    by_name = {check.name: check.status for check in checks}
    assert by_name["model absent"] is Status.FAIL
    assert by_name["model smollm2-135m"] is Status.WARN


def test_nothing_is_created_by_looking(tmp_path: Path) -> None:
    checked(tmp_path / "home", config())
    assert list(tmp_path.iterdir()) == []


def test_taken_port_names_its_holder(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        check = checked(tmp_path, config(port=port))["port"]
    assert check.status is Status.FAIL
    assert f"process {os.getpid()} (" in check.detail
    assert f"kill {os.getpid()}" in check.mend
    assert f"gateway.port={port + 1}" in check.mend


def test_damaged_model_file_is_found_by_its_checksum(tmp_path: Path) -> None:
    builtin = BUILTINS["smollm2-135m"]
    directory = tmp_path / "models" / builtin.name
    directory.mkdir(parents=True)
    (directory / "model.safetensors").write_bytes(b"weights")
    manifest.write(directory, builtin.stamp)
    served = config({"name": "smollm2-135m", "engine": {"kind": "vllm"}})
    assert checked(tmp_path, served)["model smollm2-135m"].status is Status.OK
    (directory / "model.safetensors").write_bytes(b"WEIGHTS")
    check = checked(tmp_path, served)["model smollm2-135m"]
    assert check.status is Status.FAIL
    assert "model.safetensors has changed" in check.detail
    assert f"rm -r {directory}" in check.mend


def test_unwritable_home_fails() -> None:
    check = checked(Path("/proc/corral"), config())["home"]
    assert check.status is Status.FAIL
    assert "CORRAL_HOME" in check.mend


def test_packages_are_compared_with_the_lock(tmp_path: Path) -> None:
    assert packages(tmp_path).status is Status.WARN
    lock = tmp_path / "cpu.lock"
    right = f"rich=={version('rich')} \\\n    --hash=sha256:00\n"
    lock.write_text(f"# a lock\n{right}pywin32==1 ; sys_platform == 'win32' \\\n")
    (tmp_path / "gpu.lock").symlink_to(lock)
    assert packages(tmp_path).status is Status.OK
    lock.write_text(f"{right}psutil==0.1 \\\n    --hash=sha256:00\nno-such-package==2\n")
    check = packages(tmp_path)
    assert check.status is Status.FAIL
    assert f"psutil {version('psutil')} (lock: 0.1)" in check.detail
    assert "no-such-package missing (lock: 2)" in check.detail


def test_gpu_wanted_but_absent_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    served = config({**FAKE, "replicas": {"num_gpus": 1}})
    check = checked(tmp_path, served)["GPU"]
    assert check.status is Status.FAIL
    assert "the configuration wants 1" in check.detail


def test_gpu_beside_a_cpu_build_of_torch_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not version("torch").endswith("+cpu"):
        pytest.skip("this environment has a GPU build")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA L4, 23034 MiB, 580.65.06'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    check = checked(tmp_path, config())["GPU"]
    assert check.status is Status.WARN
    assert "1 x NVIDIA L4 23034 MiB, driver 580.65.06" in check.detail
    assert "CORRAL_TARGET=gpu" in check.mend


def test_too_little_disk_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "DISK_FAIL_GIB", 1e9)
    assert checked(tmp_path, config())["disk"].status is Status.FAIL


def test_rendering_shows_mends_and_tells_failure_from_warning() -> None:
    def shown(*checks: Check) -> tuple[bool, str]:
        text = io.StringIO()
        good = render(checks, Console(file=text, width=80))
        return good, text.getvalue()

    fine = Check("a", Status.OK, "fine", "unseen")
    warned = Check("b", Status.WARN, "so so [x]", "press [b]")
    failed = Check("c", Status.FAIL, "gone", "bring it")
    good, text = shown(fine, warned)
    assert good
    assert "unseen" not in text
    assert "so so [x]" in text
    assert "press [b]" in text
    good, text = shown(fine, warned, failed)
    assert not good
    assert "bring it" in text
    assert "3 checks, 1 failed, 1 warnings" in text


def test_a_certificate_that_cannot_serve_fails(tmp_path: Path) -> None:
    one, two = self_signed(tmp_path, "one"), self_signed(tmp_path, "two")
    mixed = {"certificate": one.certificate, "key": two.key}
    found = checked(tmp_path, config(tls=mixed))["TLS"]
    assert found.mend
    assert "belong together" in found.detail
    assert "TLS" not in checked(tmp_path, config())
    assert checked(tmp_path, config(tls=one.model_dump()))["TLS"].detail.startswith(str(tmp_path))
