"""Fat binaries of NVIDIA's own compiler; skipped where its tools are not installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from serving.pack.fatbin import Image, blank, images

SOURCE = "__global__ void f(float* x) { x[threadIdx.x] *= 2; }"


def names(found: list[Image]) -> list[str]:
    return [image.name for image in found]


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc, to compile a library")
def test_library_of_a_real_compiler_keeps_its_needed_code(tmp_path: Path) -> None:
    (tmp_path / "f.cu").write_text(SOURCE)
    codes = [f"-gencode=arch=compute_{n},code=sm_{n}" for n in ("80", "90", "90a", "100")]
    subprocess.run(
        ["nvcc", "-shared", "-cudart=none", "-Xcompiler=-fPIC", *codes, "-o", "f.so", "f.cu"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    data = (tmp_path / "f.so").read_bytes()
    assert Counter(names(images(data))) == {"sm_80": 1, "sm_90": 1, "sm_90a": 1, "sm_100": 1}
    changed, dropped = blank(data, 90)
    assert sorted(names(dropped)) == ["sm_100", "sm_80"]
    kept = [image for image in images(changed) if image not in dropped]
    for image in kept:
        end = image.start + image.size
        assert changed[image.start : end] == data[image.start : end] != bytes(image.size)


@pytest.mark.skipif(
    shutil.which("cuobjdump") is None or shutil.which("nvcc") is None,
    reason="needs cuobjdump and nvcc, of NVIDIA's toolkit",
)
def test_cuobjdump_lists_the_same_images(tmp_path: Path) -> None:
    (tmp_path / "f.cu").write_text(SOURCE)
    codes = ["-gencode=arch=compute_80,code=[sm_80,compute_80]", "-gencode=arch=compute_90a,code=sm_90a"]  # fmt: skip  # noqa: E501
    subprocess.run(
        ["nvcc", "-shared", "-cudart=none", "-Xcompiler=-fPIC", *codes, "-o", "f.so", "f.cu"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    for data in (before := (tmp_path / "f.so").read_bytes(), blank(before, 90)[0]):
        (tmp_path / "f.so").write_bytes(data)
        said = subprocess.run(
            ["cuobjdump", "f.so"], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout
        assert sorted(re.findall(r"^arch = (sm_\w+)", said, re.MULTILINE)) == sorted(
            image.name.replace("compute_", "sm_") for image in images(data)
        )
