"""Private places and the admin key; start-up progress."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from serving import progress
from serving.home import Home
from serving.progress import Progress
from serving.runtime import (
    Runtime,
    admin_key,
    create_runtime_directory,
    runtime_directory,
)
from serving.store.secret import key_prefix


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
    return Home(tmp_path / "home")


def test_home_is_configured_or_in_the_users_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/users/ada")
    monkeypatch.setenv("CORRAL_HOME", "~/elsewhere")
    assert Home.from_env().root == Path("/users/ada/elsewhere")
    monkeypatch.setenv("CORRAL_HOME", "")
    assert Home.from_env().root == Path("/users/ada/.corral")
    monkeypatch.chdir("/")
    monkeypatch.setenv("CORRAL_HOME", "here")
    assert Home.from_env().adapters == Path("/here/adapters")


def test_the_runtime_directory_is_private_and_one_per_home(home: Home) -> None:
    directory = create_runtime_directory(home)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert create_runtime_directory(home) == directory
    assert runtime_directory(Home(home.root / "other")) != directory
    assert len(str(directory / "engine-0123456789ab.sock")) < 107 + len(str(home.root))


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_runtime_directory_that_others_can_open_is_refused(home: Home, mode: int) -> None:
    create_runtime_directory(home).chmod(mode)
    with pytest.raises(PermissionError, match="not private to this user; remove it"):
        create_runtime_directory(home)


def test_a_link_in_its_place_is_refused(home: Home, tmp_path: Path) -> None:
    (tmp_path / "trap").mkdir(mode=0o700)
    runtime_directory(home).symlink_to(tmp_path / "trap")
    with pytest.raises(PermissionError, match="not private"):
        create_runtime_directory(home)


def test_the_admin_key_is_made_once_and_readable_by_its_owner_only(home: Home) -> None:
    key = admin_key(home)
    credentials = home.root / "credentials"
    assert credentials.stat().st_mode & 0o777 == 0o600
    assert key == f"sk-{key_prefix(key)}-{key[12:]}"
    assert len(key[12:]) >= 32
    written = credentials.read_text()
    assert admin_key(home) == key
    assert credentials.read_text() == written


@pytest.mark.parametrize("before", ["hub_token: abc\n", "hub_token: abc", "admin_key:\n"])
def test_other_credentials_stay(home: Home, before: str) -> None:
    home.root.mkdir()
    credentials = home.root / "credentials"
    credentials.write_text(before)
    credentials.chmod(0o644)
    key = admin_key(home)
    assert admin_key(home) == key
    assert credentials.read_text().startswith(before)
    assert credentials.stat().st_mode & 0o777 == 0o600


def test_an_own_admin_key_is_used(home: Home) -> None:
    home.root.mkdir()
    (home.root / "credentials").write_text("a: b\n admin_key :  sk:mine \n")
    assert admin_key(home) == "sk:mine"


def test_several_starts_at_once_agree_on_the_key(home: Home) -> None:
    barrier, keys = threading.Barrier(8), []

    def start() -> None:
        barrier.wait()
        keys.append(admin_key(home))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(keys) == {admin_key(home)}


def test_the_admin_key_is_not_in_the_repr(home: Home) -> None:
    assert "sk-secret" not in repr(Runtime(home, home.run, "sk-secret"))


def test_progress_is_read_in_order(tmp_path: Path) -> None:
    assert progress.read(tmp_path) == []
    Progress(tmp_path, "a").phase("loading")
    Progress(tmp_path, "b").failed("no\nroom — at all")
    found = [(event.model, event.phase, event.detail) for event in progress.read(tmp_path)]
    assert found == [("a", "loading", ""), ("b", "failed", "no\nroom — at all")]


def test_a_line_that_is_still_being_written_is_left_for_later(tmp_path: Path) -> None:
    Progress(tmp_path, "a").phase("loading")
    path = tmp_path / progress.FILE
    whole = path.read_text()
    path.write_text(whole + whole[:20])
    assert len(progress.read(tmp_path)) == 1
    path.write_text(whole + whole)
    assert len(progress.read(tmp_path)) == 2


def test_long_events_of_many_replicas_do_not_mix(tmp_path: Path) -> None:
    def report(name: str) -> None:
        for _ in range(20):
            Progress(tmp_path, name).phase("loading", name * 30_000)

    threads = [threading.Thread(target=report, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = progress.read(tmp_path)
    assert len(events) == 80
    assert all(event.detail == event.model * 30_000 for event in events)
