from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from serving.errors import AdapterNotFound, AdapterRefused
from tests.adapter_files import CONFIG, WEIGHTS, age, write_adapter
from tests.unit.adapters.site import Site, overwrite, replace, row


@pytest.mark.parametrize("change", [overwrite, replace])
def test_a_name_that_was_served_never_stands_for_other_bytes(
    site: Site, change: Callable[[Path], None]
) -> None:
    path = site.add("pirate", "1")
    age(site.home.adapters)
    store = site.store()
    store.resolve("tiny", "pirate")
    change(path)
    for _ in range(2):
        with pytest.raises(AdapterRefused, match="changed after it was served"):
            store.resolve("tiny", "pirate", "1")
    site.add("pirate", "2", seed=7)
    assert store.resolve("tiny", "pirate").engine_name == "tiny:pirate@2"


def test_a_file_added_beside_a_served_version_is_checked(site: Site) -> None:
    path = site.add("pirate", "1")
    age(site.home.adapters)
    store = site.store()
    store.resolve("tiny", "pirate")
    (path / "README.md").touch()
    assert store.resolve("tiny", "pirate").engine_name == "tiny:pirate@1"
    (path / "adapter_model.bin").touch()
    with pytest.raises(AdapterRefused, match="pickle"):
        store.resolve("tiny", "pirate")


def test_a_version_not_yet_served_may_be_replaced(site: Site) -> None:
    path = site.add("pirate", "1")
    age(site.home.adapters)
    store = site.store()
    assert row(store, "1").error is None
    replace(path)
    assert store.resolve("tiny", "pirate").engine_name == "tiny:pirate@1"


def test_a_configured_directory_is_a_version_named_by_its_bytes(site: Site, tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "mine", seed=1)
    site.adapters = {"own": str(path)}
    store = site.store()
    first = store.resolve("tiny", "own")
    assert first.path == path
    assert first == site.store().resolve("tiny", "own")
    overwrite(path)
    second = store.resolve("tiny", "own")
    assert second.engine_name != first.engine_name
    version = second.engine_name.partition("@")[2]
    assert store.resolve("tiny", "own", version) == second
    with pytest.raises(AdapterNotFound):
        store.resolve("tiny", "own", first.engine_name.partition("@")[2])
    assert row(store, version, "own").live


def test_a_configured_directory_goes_before_the_folder_until_another_is_pinned(
    site: Site, tmp_path: Path
) -> None:
    site.adapters = {"pirate": str(write_adapter(tmp_path / "mine", seed=1))}
    site.add("pirate", "1")
    store = site.store()
    assert store.resolve("tiny", "pirate").path == tmp_path / "mine"
    store.set_live("pirate", "1")
    assert store.resolve("tiny", "pirate").engine_name == "tiny:pirate@1"


def test_a_configured_directory_can_be_disabled_without_a_folder(
    site: Site, tmp_path: Path
) -> None:
    site.adapters = {"own": str(write_adapter(tmp_path / "mine"))}
    store = site.store()
    store.disable("own")
    with pytest.raises(AdapterNotFound, match="disabled"):
        site.store().resolve("tiny", "own")


def test_a_configured_directory_may_hold_links_as_the_hub_cache_does(
    site: Site, tmp_path: Path
) -> None:
    blobs = write_adapter(tmp_path / "blobs")
    (tmp_path / "snapshot").mkdir()
    for name in (CONFIG, WEIGHTS):
        (tmp_path / "snapshot" / name).symlink_to(blobs / name)
    site.adapters = {"own": str(tmp_path / "snapshot")}
    assert site.store().resolve("tiny", "own").path == tmp_path / "snapshot"


def test_a_configured_directory_that_is_missing_is_refused_by_name(
    site: Site, tmp_path: Path
) -> None:
    site.adapters = {"own": str(tmp_path / "missing")}
    store = site.store()
    with pytest.raises(AdapterRefused, match="missing does not exist"):
        store.resolve("tiny", "own")
    assert row(store, "refused", "own").base == "tiny"
