"""The sizes that are kept of a bundle."""

from __future__ import annotations

import json
from pathlib import Path

from serving.pack.manifest import Manifest, PackageRecord, PartRecord, Removed
from serving.pack.summary import write_summary


def package(name: str, packed: int | None, **more: object) -> PackageRecord:
    return PackageRecord.model_validate(
        {
            "name": name,
            "version": "1.0",
            "file": f"wheels/{name}.whl",
            "origin_sha256": "0" * 64,
            "origin_bytes": 5_000_000,
            "packed_bytes": packed,
            **more,
        }
    )


def test_sizes_are_in_mb_and_the_largest_come_first(tmp_path: Path) -> None:
    removed = [Removed(reason="pages", files=2, bytes=1_500_000)]
    manifest = Manifest(
        corral="1", revision="abc", target="gpu", python="3.12", platform="manylinux_2_39_x86_64",
        arch="sm_90", torch_from_host=True, lock="gpu.lock", compression="xz",
        packages=[
            package("small", 10_000),
            package("large", 3_000_000, removed=removed, blanked_bytes=2_000_000),
        ],
        omitted={"numba": "unused"}, on_host={"torch": "2.11.0"}, replaces={}, imports=[],
        config="fake", models=[], adapters=[], files=[],
        parts=[PartRecord(name="corral-bundle.000", size=3_010_000, sha256="0" * 64)],
        total_bytes=3_010_000,
    )  # fmt: skip
    path = tmp_path / "results" / "bundle.json"
    write_summary(manifest, ["pack", "--target", "gpu", "OUT"], path)
    found = json.loads(path.read_text())
    assert found["command"] == "corral pack --target gpu OUT"
    assert found["revision"] == "abc"
    assert found["parts"] == [{"name": "corral-bundle.000", "mb": 3.01}]
    assert found["total_mb"] == 3.01
    assert [row["name"] for row in found["packages"]] == ["large", "small"]
    assert found["packages"][0] == {
        "name": "large", "version": "1.0", "wheel_mb": 5.0, "packed_mb": 3.0,
        "removed_mb": {"pages": 1.5}, "other_gpus_mb": 2.0,
    }  # fmt: skip
    assert found["on_host"] == {"torch": "2.11.0"}
