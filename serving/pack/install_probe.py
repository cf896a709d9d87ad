"""Looks at a fresh installation from inside: imports, versions that fit, the GPU.

    venv/bin/python install_probe.py MANIFEST

For install.py, which copies nothing of it: it is a file of every bundle too.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

Manifest = dict[str, Any]


def step(message: str) -> None:
    """One line of the report."""
    print(f"[install] {message}", flush=True)


def probe(manifest: Manifest) -> int:
    """Does everything import, fit and see the GPU? 0 if so."""
    failed = 0
    for name in manifest["imports"]:
        try:
            importlib.import_module(name)
        except Exception as exc:  # a broken package may raise anything
            failed = 1
            step(f"FAIL import {name}: {type(exc).__name__}: {exc}")
    if not failed:
        step(f"{len(manifest['imports'])} imports")
    for line in conflicts(manifest):
        step(f"CONFLICT {line}")
    return failed | (probe_gpu(manifest["arch"]) if manifest["target"] == "gpu" else 0)


def conflicts(manifest: Manifest) -> Iterator[str]:
    """Requirements of the bundle's packages that are met by nothing, or by a wrong version.

    An extra is followed into the host's packages, which may be there without it.
    """
    waiting = [(package["name"], "") for package in manifest["packages"]]
    seen = set(waiting)
    while waiting:
        package, extra = waiting.pop(0)
        for need in requirements(package, extra):
            name = re.sub(r"[-_.]+", "-", need.name).lower()
            if name in manifest["omitted"]:
                continue
            try:
                have = metadata.version(need.name)
            except metadata.PackageNotFoundError:
                yield f"{package} requires {need}, which is not installed"
                continue
            if not need.specifier.contains(have, prereleases=True):
                yield f"{package} requires {need}, installed is {have}"
            new = {(need.name, wanted) for wanted in need.extras} - seen
            seen |= new
            waiting += sorted(new)


def requirements(package: str, extra: str) -> Iterator[Any]:
    """What `package` requires here; with an extra, only what that adds."""
    from packaging.requirements import Requirement

    for line in metadata.requires(package) or []:
        need = Requirement(line)
        always = need.marker is None or need.marker.evaluate({"extra": ""})
        with_it = need.marker is None or need.marker.evaluate({"extra": extra})
        if with_it and not (extra and always):
            yield need


def probe_gpu(arch: str | None) -> int:
    """Whether torch sees a GPU that the kernels are for, and computes on it."""
    import torch

    if not torch.cuda.is_available():
        step(f"FAIL torch {torch.__version__} (CUDA {torch.version.cuda}) sees no GPU -> "
             "mend the driver until nvidia-smi works and is new enough for this CUDA")  # fmt: skip
        return 1
    found = "sm_{}{}".format(*torch.cuda.get_device_capability(0))
    if arch and found != arch.rstrip("af"):
        step(f"FAIL the GPU is {found}, the kernels are for {arch} -> pack with --arch {found}")
        return 1
    ones = torch.ones(256, 256, device="cuda", dtype=torch.bfloat16)
    step(f"{torch.cuda.get_device_name(0)} {found}: {float((ones @ ones).sum()):g} (16777216)")
    return 0


if __name__ == "__main__":
    sys.exit(probe(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
