from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.adapters.state import STATE, State, read_state, update_state
from serving.errors import AdapterRefused

ADD_MANY = """
import sys
from pathlib import Path
from serving.adapters.state import update_state
for number in range(int(sys.argv[3])):
    update_state(Path(sys.argv[1]), lambda s: s.disable(f"{sys.argv[2]}-{number}"))
    print(number, flush=True)
"""


def writer(folder: Path, tag: str, count: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", ADD_MANY, str(folder), tag, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def test_an_adapter_nobody_decided_about_has_the_default_state(tmp_path: Path) -> None:
    assert read_state(tmp_path / "none") == State()


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.with_live("2"),
        lambda state: state.disable("1"),
        lambda state: state.disable(None),
        lambda state: state.with_live("3").disable("1").disable("2"),
    ],
)
def test_what_was_decided_is_read_back(tmp_path: Path, change: Callable[[State], State]) -> None:
    written = update_state(tmp_path / "x", change)
    assert written == change(State())
    assert read_state(tmp_path / "x") == written
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == [".lock", STATE]


def test_disabling_the_whole_adapter_covers_versions_yet_to_come() -> None:
    state = State().disable(None)
    assert state.is_disabled("99")
    assert not state.enable(None, ["1"]).is_disabled("1")


def test_of_an_adapter_disabled_as_a_whole_one_version_comes_back() -> None:
    state = State().disable(None).enable("2", ["1", "2", "3"])
    assert [state.is_disabled(version) for version in ("1", "2", "3")] == [True, False, True]


def test_enabling_one_version_leaves_the_others_as_they_are() -> None:
    state = State().disable("1").disable("2").enable("2", ["1", "2", "3"])
    assert [state.is_disabled(version) for version in ("1", "2", "3")] == [True, False, False]


def test_processes_that_write_at_once_lose_no_update(tmp_path: Path) -> None:
    writers = [writer(tmp_path, str(index), 15) for index in range(3)]
    for process in writers:
        process.communicate()
        assert process.returncode == 0
    expected = {f"{index}-{number}" for index in range(3) for number in range(15)}
    assert read_state(tmp_path).disabled == expected


def test_a_killed_writer_leaves_a_whole_state_and_no_lock(tmp_path: Path) -> None:
    process = writer(tmp_path, "k", 1_000_000)
    assert process.stdout is not None
    last = [int(process.stdout.readline()) for _ in range(20)][-1]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = read_state(tmp_path).disabled
    assert {f"k-{number}" for number in range(last + 1)} <= kept
    assert update_state(tmp_path, lambda state: state.with_live("9")).disabled == kept


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"live": 2}',
        b'{"off": "no"}',
        b'{"disabled": "1"}',
        b'{"disabled": [1]}',
        b'{"live": NaN}',
    ],
)
def test_a_damaged_state_is_refused_with_the_mend(tmp_path: Path, content: bytes) -> None:
    (tmp_path / STATE).write_bytes(content)
    for action in (read_state, lambda folder: update_state(folder, lambda state: state)):
        with pytest.raises(AdapterRefused, match=STATE):
            action(tmp_path)
    assert (tmp_path / STATE).read_bytes() == content
