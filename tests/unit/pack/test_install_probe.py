"""What the probe finds wrong with the requirements of an installation."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from serving.pack.install_probe import conflicts
from tests.unit.pack.wheels import make_wheel


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of packages: `top-of-bundle`, and `lower-on-host`, which it wants with x."""
    path = tmp_path / "site"
    rows = {
        "top_of_bundle": ["lower-on-host[x]>=1"],
        "lower_on_host": ["never-there-y ; extra == 'y'", "never-there-x>=2 ; extra == 'x'",
                          "never-there-at-all"],
    }  # fmt: skip
    for name, requires in rows.items():
        with zipfile.ZipFile(make_wheel(tmp_path, name, {}, requires=requires)) as wheel:
            wheel.extractall(path)
    monkeypatch.syspath_prepend(str(path))
    return path


def manifest(**omitted: str) -> dict[str, Any]:
    return {"packages": [{"name": "top-of-bundle"}], "omitted": omitted}


def test_extra_that_the_host_lacks_is_named(site: Path) -> None:
    found = list(conflicts(manifest()))
    assert len(found) == 1
    assert found[0].startswith("lower-on-host requires never-there-x>=2")
    assert found[0].endswith("not installed")


def test_what_was_left_out_on_purpose_is_not(site: Path) -> None:
    assert not list(conflicts(manifest(**{"never-there-x": "left out"})))


def test_wrong_version_is_named(site: Path, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "never_there_x", {}, version="1.0")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    assert [line.split(", ")[-1] for line in conflicts(manifest())] == ["installed is 1.0"]
