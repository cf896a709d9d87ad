from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from serving.adapters import AdapterStore
from serving.config import ModelConfig, VllmConfig
from serving.errors import AdapterNotFound, AdapterRefused, CorralError
from tests.adapter_files import WEIGHTS, age, write_adapter
from tests.unit.adapters.site import Site, row

opened: list[str] | None = None


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if opened is not None and event in ("open", "os.scandir", "os.listdir"):
        opened.append(f"{event} {args[0]}")


sys.addaudithook(_watch)


@contextmanager
def files_read() -> Iterator[list[str]]:
    """What is opened or listed while the block runs."""
    global opened
    opened = []
    try:
        yield opened
    finally:
        opened = None


def test_the_bare_name_means_the_highest_version(site: Site) -> None:
    for version in ("2", "10", "9"):
        site.add("pirate", version)
    ref = site.store().resolve("tiny", "pirate")
    assert ref.engine_name == "tiny:pirate@10"
    assert ref.path == site.home.adapters / "pirate" / "10"
    assert site.store().resolve("tiny", "pirate", "2").engine_name == "tiny:pirate@2"


def test_without_an_adapters_folder_nothing_is_found(site: Site) -> None:
    store = site.store()
    assert store.list() == []
    with pytest.raises(AdapterNotFound):
        store.resolve("tiny", "pirate")


def test_an_unknown_name_is_answered_with_the_near_ones(site: Site) -> None:
    site.add("pirate", "1")
    site.add("pirate", "2")
    store = site.store()
    with pytest.raises(AdapterNotFound, match="did you mean tiny:pirate"):
        store.resolve("tiny", "pirat")
    with pytest.raises(AdapterNotFound, match="did you mean tiny:pirate@"):
        store.resolve("tiny", "pirate", "3")


@pytest.mark.parametrize("base", ["plain", "vectors", "absent"])
def test_a_model_without_adapters_says_which_models_take_them(site: Site, base: str) -> None:
    site.add("pirate", "1")
    with pytest.raises(AdapterNotFound, match="models that do: tiny, other"):
        site.store().resolve(base, "pirate")


@pytest.mark.parametrize("name", ["..", ".", "", "../pirate", "pirate/1", "/etc", "a\0b", "~"])
def test_no_name_leads_out_of_the_folder(site: Site, name: str) -> None:
    site.add("pirate", "1")
    store = site.store()
    for wanted in ((name, None), ("pirate", name)):
        with pytest.raises(AdapterNotFound):
            store.resolve("tiny", *wanted)
    for action in (store.disable, store.enable):
        with pytest.raises(AdapterNotFound):
            action(name)
    assert {path.name for path in site.root.iterdir()} == {"adapters", "weights"}


@pytest.mark.parametrize("aged", [True, False])
def test_what_another_process_does_counts_at_once(site: Site, aged: bool) -> None:
    def seen() -> str:
        if aged:
            age(site.home.adapters)
        return store.resolve("tiny", "pirate").engine_name

    site.add("pirate", "1")
    store, another = site.store(), site.store()
    assert seen() == "tiny:pirate@1"
    site.add("pirate", "2")
    assert seen() == "tiny:pirate@2"
    another.set_live("pirate", "1")
    assert seen() == "tiny:pirate@1"
    another.set_live("pirate", "2")
    assert seen() == "tiny:pirate@2"
    another.disable("pirate", "2")
    with pytest.raises(AdapterNotFound, match="tiny:pirate@2 is disabled"):
        seen()
    another.enable("pirate", "2")
    assert seen() == "tiny:pirate@2"
    another.disable("pirate")
    with pytest.raises(AdapterNotFound, match="disabled"):
        seen()
    another.enable("pirate")
    shutil.rmtree(site.home.adapters / "pirate" / "2")
    with pytest.raises(AdapterNotFound, match="version 2 live, which is gone from disk"):
        seen()
    shutil.rmtree(site.home.adapters / "pirate")
    with pytest.raises(AdapterNotFound, match="no adapter tiny:pirate"):
        store.resolve("tiny", "pirate")


@pytest.mark.parametrize("version", [None, "1"])
def test_when_nothing_changed_no_file_is_read(site: Site, version: str | None) -> None:
    site.add("pirate", "1")
    store = site.store()
    store.disable("pirate", "1")
    store.enable("pirate", "1")
    age(site.home.adapters)
    first = store.resolve("tiny", "pirate", version)
    with files_read() as read:
        assert store.resolve("tiny", "pirate", version) is first
    assert read == []
    site.add("pirate", "2")
    with files_read() as read:
        store.resolve("tiny", "pirate", version)
    assert read != []


def test_a_refused_version_never_becomes_live_by_itself(site: Site) -> None:
    site.add("pirate", "1")
    site.add("pirate", "2", config={"use_dora": True})
    store = site.store()
    assert store.resolve("tiny", "pirate").engine_name == "tiny:pirate@1"
    with pytest.raises(AdapterRefused, match=r"tiny:pirate@2 is refused: .*DoRA"):
        store.resolve("tiny", "pirate", "2")
    with pytest.raises(AdapterRefused, match="DoRA"):
        store.set_live("pirate", "2")
    assert store.resolve("tiny", "pirate").engine_name == "tiny:pirate@1"


def test_when_every_version_is_refused_the_newest_says_why(site: Site) -> None:
    site.add("pirate", "1", rank=16)
    site.add("pirate", "2", config={"use_dora": True})
    with pytest.raises(AdapterRefused, match=r"pirate@2 is refused: .*DoRA"):
        site.store().resolve("tiny", "pirate")


def test_a_disabled_version_gives_way_to_the_next_unless_it_was_pinned(site: Site) -> None:
    site.add("pirate", "1")
    site.add("pirate", "2")
    store = site.store()
    store.disable("pirate", "2")
    assert store.resolve("tiny", "pirate").engine_name == "tiny:pirate@1"
    with pytest.raises(AdapterNotFound, match="disabled"):
        store.set_live("pirate", "2")
    assert store.is_disabled("pirate", "2")
    assert not store.is_disabled("pirate", "1")


@pytest.mark.parametrize("action", ["disable", "enable", "set_live"])
def test_what_does_not_exist_cannot_be_decided_about(site: Site, action: str) -> None:
    site.add("pirate", "1")
    store = site.store()
    with pytest.raises(AdapterNotFound, match="it has 1"):
        getattr(store, action)("pirate", "2")
    with pytest.raises(AdapterNotFound, match="did you mean pirate"):
        getattr(store, action)("pirat", "1")
    assert not (site.home.adapters / "pirat").exists()


def test_a_copy_in_progress_is_refused_until_it_is_whole(site: Site) -> None:
    path = site.add("pirate", "1")
    whole = (path / WEIGHTS).read_bytes()
    (path / WEIGHTS).write_bytes(whole[:100])
    store = site.store()
    with pytest.raises(AdapterRefused, match="truncated"):
        store.resolve("tiny", "pirate")
    (path / WEIGHTS).write_bytes(whole)
    assert store.resolve("tiny", "pirate").engine_name == "tiny:pirate@1"


def test_an_adapter_belongs_to_the_model_it_names(site: Site) -> None:
    for number, base in enumerate(["tiny", "org/tiny", str(site.root / "weights"), "org/other"]):
        site.add(f"a{number}", "1", base=base)
    store = site.store()
    assert [v.base for v in store.list()] == ["tiny", "tiny", "tiny", "other"]
    assert store.resolve("other", "a3").engine_name == "other:a3@1"
    with pytest.raises(AdapterRefused, match="'org/other', which is none of tiny, org/tiny"):
        store.resolve("tiny", "a3")


def test_a_pin_on_a_version_of_one_model_leaves_the_other_model_its_own(site: Site) -> None:
    site.add("pirate", "1")
    site.add("pirate", "2", base="other")
    store = site.store()
    store.set_live("pirate", "1")
    assert store.resolve("tiny", "pirate").engine_name == "tiny:pirate@1"
    assert store.resolve("other", "pirate").engine_name == "other:pirate@2"


def test_the_list_tells_all_there_is_to_know(site: Site) -> None:
    site.add("pirate", "1")
    site.add("pirate", "2", rank=8, modules=["down_proj", "q_proj"])
    site.add("pirate", "3", config={"bias": "all"})
    site.add("pirate", "4", base="strange")
    store = site.store()
    store.disable("pirate", "1")
    first, second, third, fourth = store.list()
    assert [v.version for v in (first, second, third, fourth)] == ["1", "2", "3", "4"]
    assert (first.disabled, first.live, first.error) == (True, False, None)
    assert (second.disabled, second.live, second.error) == (False, True, None)
    assert (second.rank, second.target_modules) == (8, ("down_proj", "q_proj"))
    assert second.path == site.home.adapters / "pirate" / "2"
    assert second.size_bytes == (second.path / WEIGHTS).stat().st_size
    assert second.created == int(second.path.stat().st_mtime)
    assert second.engine_name == store.resolve("tiny", "pirate").engine_name
    assert (third.base, third.rank, third.live) == ("tiny", 0, False)
    assert "bias" in str(third.error)
    assert fourth.base == ""
    assert "'strange', which is none of tiny" in str(fourth.error)


def test_directories_nobody_could_ask_for_are_listed_with_the_reason(site: Site) -> None:
    site.add("pirate", "1")
    site.add("pirate", "version two")
    site.add("my adapter", "1")
    (site.home.adapters / ".staging").mkdir()
    (site.home.adapters / "pirate" / ".2.new").mkdir()
    (site.home.adapters / "README").touch()
    wrong = {(v.name, v.version) for v in site.store().list() if v.error}
    assert wrong == {("my adapter", "my adapter"), ("pirate", "version two")}


def test_with_no_model_that_takes_adapters_the_list_says_so(site: Site) -> None:
    site.add("pirate", "1")
    store = AdapterStore(site.home, [ModelConfig(name="tiny", engine=VllmConfig())])
    [only] = store.list()
    assert "max_loras" in str(only.error)


def test_a_damaged_state_stops_the_adapter_and_no_other(site: Site) -> None:
    site.add("pirate", "1")
    site.add("poet", "1")
    (site.home.adapters / "pirate" / "state.json").write_text("{")
    store = site.store()
    with pytest.raises(AdapterRefused, match=r"state\.json is not valid JSON"):
        store.resolve("tiny", "pirate")
    assert "state.json" in str(row(store, "1").error)
    assert store.resolve("tiny", "poet").engine_name == "tiny:poet@1"
    (site.home.adapters / "pirate" / "state.json").unlink()
    assert store.resolve("tiny", "pirate").engine_name == "tiny:pirate@1"


def test_a_folder_linked_from_outside_is_neither_served_nor_written(
    site: Site, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    write_adapter(outside / "1")
    site.add("poet", "1")
    (site.home.adapters / "pirate").symlink_to(outside)
    (site.home.adapters / "loop").symlink_to("loop")
    store = site.store()
    with pytest.raises(AdapterRefused, match="leads out of"):
        store.resolve("tiny", "pirate")
    with pytest.raises(CorralError, match="leads out of"):
        store.disable("pirate")
    assert [path.name for path in outside.iterdir()] == ["1"]


def test_the_adapters_folder_itself_may_be_a_link(site: Site, tmp_path: Path) -> None:
    write_adapter(tmp_path / "shared" / "pirate" / "1")
    site.home.adapters.symlink_to(tmp_path / "shared")
    store = site.store()
    store.set_live("pirate", "1")
    assert store.resolve("tiny", "pirate").engine_name == "tiny:pirate@1"


def test_decisions_survive_a_restart(site: Site) -> None:
    site.add("pirate", "1")
    site.add("pirate", "2")
    site.store().set_live("pirate", "1")
    site.store().disable("pirate", "2")
    store = site.store()
    assert [(v.live, v.disabled) for v in store.list()] == [(True, False), (False, True)]
    saved = json.loads((site.home.adapters / "pirate" / "state.json").read_text())
    assert saved == {"live": "1", "off": False, "disabled": ["2"]}


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ["torch", "vllm", "ray", "transformers", "numpy", "peft", "safetensors"]
    code = f"import sys, serving.adapters; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
