"""Which wheels go in: targets, hosts, locks, and requirements followed through wheels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.tags import Tag
from packaging.version import Version

from serving.commands.pack import parse_size
from serving.pack.bundle import Plan
from serving.pack.cache import WheelCache, open_wheel
from serving.pack.closure import Closure, resolve
from serving.pack.errors import PackError
from serving.pack.host import HostPackages, read_host_packages
from serving.pack.locks import Lock, Pin, choose_lock, read_lock
from serving.pack.project import requirements
from serving.pack.target import Target
from serving.pack.unused import GPU_UNUSED, UNUSED
from tests.unit.pack.wheels import make_wheel

REQUIREMENTS = Path(__file__).parents[3] / "requirements"
HOST = Path(__file__).with_name("h200-host.txt")
TARGET = Target("3.12", "manylinux_2_28_x86_64")
Follow = Callable[..., Closure]


def test_target_accepts_what_runs_there_and_nothing_newer() -> None:
    assert Tag("cp312", "cp312", "manylinux_2_28_x86_64") in TARGET.tags
    assert Tag("cp38", "abi3", "manylinux2014_x86_64") in TARGET.tags
    assert Tag("py3", "none", "any") in TARGET.tags
    assert Tag("cp312", "cp312", "manylinux_2_29_x86_64") not in TARGET.tags
    assert Tag("cp313", "cp313", "manylinux_2_17_x86_64") not in TARGET.tags


@pytest.mark.parametrize(
    ("python", "platform"), [("3", "manylinux_2_28_x86_64"), ("3.12", "linux")]
)
def test_target_that_is_none_is_refused(python: str, platform: str) -> None:
    with pytest.raises(PackError):
        Target(python, platform)


@pytest.mark.parametrize(
    "text",
    [
        "torch==2.11.0+cu130\nPyYAML==6.0\n",
        "Package Version\n------- -------\ntorch   2.11.0+cu130\nPyYAML  6.0\n",
        '[{"name": "torch", "version": "2.11.0+cu130"}, {"name": "PyYAML", "version": "6.0"}]',
        "torch @ file:///torch-2.11.0+cu130-cp312-cp312-linux_x86_64.whl\n-e x\nPyYAML==6.0\n",
    ],
)
def test_every_form_of_package_list_is_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "list").write_text(text)
    host = read_host_packages(tmp_path / "list")
    assert host.versions == {"torch": Version("2.11.0+cu130"), "pyyaml": Version("6.0")}
    assert host.satisfies(Requirement("torch==2.11.0"))
    assert not host.satisfies(Requirement("torch==2.13.0"))
    assert not host.satisfies(Requirement("ray"))


def test_list_without_packages_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("pip: command not found\n")
    with pytest.raises(PackError, match="pip list"):
        read_host_packages(tmp_path / "list")


def test_lock_is_read_for_the_target_and_not_for_this_machine() -> None:
    newer = Target("3.13", "manylinux_2_28_x86_64")
    path = REQUIREMENTS / "gpu.lock"
    assert read_lock(path, TARGET).pins["numpy"].version < Version("2.4")
    assert read_lock(path, newer).pins["numpy"].version >= Version("2.4")
    assert all(pin.hashes for pin in read_lock(path, TARGET).pins.values())


def test_newest_vllm_for_the_hosts_torch_is_chosen() -> None:
    lock = choose_lock(REQUIREMENTS, "gpu", TARGET, read_host_packages(HOST))
    assert lock.path.name == "gpu-torch-2.11.lock"
    assert str(lock.pins["vllm"].version) == "0.26.0"
    assert choose_lock(REQUIREMENTS, "gpu", TARGET, None).path.name == "gpu.lock"


@pytest.mark.parametrize("versions", [{}, {"torch": Version("2.3.1")}])
def test_host_whose_torch_no_lock_is_for_is_refused(versions: dict[str, Version]) -> None:
    with pytest.raises(PackError, match="torch"):
        choose_lock(REQUIREMENTS, "gpu", TARGET, HostPackages(versions))


def test_packages_left_out_are_in_a_lock_and_can_be_put_back() -> None:
    pins = read_lock(REQUIREMENTS / "gpu-torch-2.11.lock", TARGET).pins
    assert set(GPU_UNUSED) | set(UNUSED) <= set(pins)
    plan = Plan("gpu", TARGET, without=frozenset({"Pillow"}), with_=frozenset({"Numba"}))
    assert "pillow" in plan.unused
    assert "numba" not in plan.unused
    assert "numba" not in Plan("cpu", TARGET).unused
    assert "gguf" not in Plan("gpu", TARGET, models=("smollm2-135m",)).unused


@pytest.fixture
def follow(tmp_path: Path) -> Follow:
    """Resolve `root` among wheels a, b, c and d that are in the cache already."""
    wheels = {
        "a": make_wheel(tmp_path, "a", {}, requires=["b[x]>=1", "c<2 ; python_version < '3.13'"]),
        "b": make_wheel(tmp_path, "b", {}, requires=["d ; extra == 'x'", "e ; extra == 'y'"]),
        "c": make_wheel(tmp_path, "c", {}, requires=["gone", "a"]),
        "d": make_wheel(tmp_path, "d", {}),
    }
    pins = {
        name: Pin(name, Version("1.0"), frozenset({open_wheel(path).sha256}))
        for name, path in wheels.items()
    }
    lock, cache = Lock(tmp_path / "x.lock", pins), WheelCache(tmp_path, TARGET, print)

    def run(host: dict[str, str], unused: dict[str, str] | None = None) -> Closure:
        have = HostPackages({name: Version(version) for name, version in host.items()})
        root = [Requirement("a")]
        return resolve(root, lock, cache, TARGET, host=have, unused=unused or {})

    return run


def test_requirements_extras_and_markers_are_followed(follow: Follow) -> None:
    found = follow({})
    assert set(found.wheels) == {"a", "b", "c", "d"}
    assert set(found.omitted) == {"gone"}


def test_what_the_host_has_is_left_to_it_with_all_it_requires(follow: Follow) -> None:
    found = follow({"b": "1.5"})
    assert set(found.wheels) == {"a", "c"}
    assert found.on_host == {"b": "1.5"}


def test_host_version_that_does_not_fit_is_replaced_and_named(follow: Follow) -> None:
    found = follow({"c": "2.0", "d": "1.0"})
    assert set(found.wheels) == {"a", "b", "c"}
    assert set(found.replaces) == {"c"}
    assert found.on_host == {"d": "1.0"}


def test_unused_package_takes_its_requirements_along(follow: Follow) -> None:
    found = follow({}, {"b": "never imported"})
    assert set(found.wheels) == {"a", "c"}
    assert found.omitted["b"] == "never imported"


def test_wheel_with_a_foreign_digest_is_not_used(tmp_path: Path) -> None:
    make_wheel(tmp_path, "a", {})
    cache = WheelCache(tmp_path, TARGET, print)
    pin = Pin("a", Version("1.0"), frozenset({"0" * 64}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        with pytest.raises(PackError, match="could not fetch"):
            cache.get([pin])


def test_project_requires_what_pyproject_says() -> None:
    names = {requirement.name for requirement in requirements("gpu")}
    assert {"vllm", "ray", "fastapi"} <= names


@pytest.mark.parametrize(
    ("text", "size"), [("60MB", 60_000_000), ("512MiB", 512 * 2**20), ("2 GB", 2 * 10**9)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0MB", "60 apples", "-1MB"])
def test_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(PackError, match="--split"):
        parse_size(text)
