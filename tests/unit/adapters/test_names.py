from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.adapters import AdapterName, version_key
from serving.errors import AdapterNotFound

FOLDER = Path("/srv/adapters")
FIRST = string.ascii_letters + string.digits
PARTS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,40}", fullmatch=True).filter(
    lambda part: part != "state.json"
)
BASES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,40}", fullmatch=True)


@given(BASES, PARTS, st.none() | PARTS)
def test_a_name_reads_back_as_it_was_written(base: str, name: str, version: str | None) -> None:
    written = AdapterName(base, name, version)
    assert AdapterName.parse(str(written)) == written


HOSTILE = st.text() | st.text(alphabet="./\\:@~\0\n" + FIRST)


@given(HOSTILE, HOSTILE, st.none() | HOSTILE)
def test_no_accepted_name_leaves_the_folder(base: str, name: str, version: str | None) -> None:
    try:
        accepted = AdapterName(base, name, version)
    except AdapterNotFound:
        return
    parts = [part for part in (accepted.name, accepted.version) if part is not None]
    path = FOLDER.joinpath(*parts)
    assert len(path.parts) == len(FOLDER.parts) + len(parts)
    assert path.resolve().is_relative_to(FOLDER)
    assert not any(part.startswith(".") for part in parts)


@given(HOSTILE)
def test_what_parses_is_written_the_same(text: str) -> None:
    try:
        parsed = AdapterName.parse(text)
    except AdapterNotFound:
        return
    assert str(parsed) == text


@pytest.mark.parametrize(
    "text",
    [
        "base",
        "base:",
        ":name",
        "base:name@",
        "base:@1",
        "base:..",
        "base:../x",
        "base:a/b",
        "base:name@..",
        "base:name@1@2",
        "base:.hidden",
        "base:name\n",
        "base:name@state.json",
        "base:näme",
        "base:" + "a" * 129,
    ],
)
def test_what_names_no_adapter_is_not_found(text: str) -> None:
    with pytest.raises(AdapterNotFound):
        AdapterName.parse(text)


def test_a_base_with_an_organisation_is_kept_whole() -> None:
    assert AdapterName.parse("meta-llama/Llama-3.1-8B:pirate@2") == AdapterName(
        "meta-llama/Llama-3.1-8B", "pirate", "2"
    )


@pytest.mark.parametrize(
    "ascending",
    [
        ["1", "2", "10"],
        ["v1", "v2", "v10"],
        ["1.2.0", "1.10.0", "2.0.0"],
        ["1.0-alpha", "1.0-rc1", "1.0-rc2", "1.0", "1.0.1"],
        ["2024-09-30", "2024-10-01", "2025-01-01"],
    ],
)
def test_versions_are_ordered_by_the_numbers_in_them(ascending: list[str]) -> None:
    shuffled = ascending[::-1]
    assert sorted(shuffled, key=version_key) == ascending


@given(st.lists(PARTS, unique=True))
def test_any_two_versions_have_an_order(versions: list[str]) -> None:
    ascending = sorted(versions, key=version_key)
    descending = sorted(versions, key=version_key, reverse=True)
    assert ascending == descending[::-1]
