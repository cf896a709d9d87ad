"""Images in a shared library: told apart, the needed ones kept to the byte, the rest zeroed."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.pack.errors import FatbinError
from serving.pack.fatbin import Image, Kind, blank, images, needed, parse_arch
from tests.unit.pack.wheels import (
    CUBIN_75,
    CUBIN_80,
    CUBIN_90,
    CUBIN_90A,
    PTX_80,
    PTX_90,
    Code,
    library,
)


def names(found: list[Image]) -> list[str]:
    return [image.name for image in found]


def test_images_are_listed_with_kind_architecture_and_payload() -> None:
    data = library([[CUBIN_75, PTX_80], [CUBIN_90A]])
    found = images(data)
    assert names(found) == ["sm_75", "compute_80", "sm_90a"]
    assert [image.group for image in found] == [0, 0, 1]
    payloads = [data[image.start : image.start + image.size] for image in found]
    assert payloads == [CUBIN_75.payload, PTX_80.payload, CUBIN_90A.payload]


@pytest.mark.parametrize(
    ("group", "kept"),
    [
        ([CUBIN_75, CUBIN_80, CUBIN_90], ["sm_90"]),
        ([CUBIN_90, CUBIN_90A, PTX_90], ["sm_90", "sm_90a"]),
        ([CUBIN_80, PTX_80], ["compute_80"]),
        ([CUBIN_75, PTX_80, PTX_90], ["compute_90"]),
        ([CUBIN_75], []),
    ],
)
def test_what_the_gpu_would_load_is_kept(group: list[Code], kept: list[str]) -> None:
    assert names(needed(images(library([group])), 90)) == kept


def test_cubin_of_a_lower_minor_version_runs_and_an_exact_one_is_preferred() -> None:
    assert names(needed(images(library([[CUBIN_80, PTX_80]])), 86)) == ["sm_80"]
    exact = Code(Kind.CUBIN, 86, b"8" * 32)
    assert names(needed(images(library([[CUBIN_80, exact]])), 86)) == ["sm_86"]


def test_architecture_specific_code_runs_on_that_architecture_alone() -> None:
    assert names(needed(images(library([[CUBIN_90A, PTX_80]])), 100)) == ["compute_80"]


def test_blanking_changes_the_payloads_of_dropped_images_and_nothing_else() -> None:
    data = library([[CUBIN_75, CUBIN_90], [CUBIN_80, PTX_80]])
    changed, dropped = blank(data, 90)
    assert names(dropped) == ["sm_75", "sm_80"]
    assert len(changed) == len(data)
    assert images(changed) == images(data)
    expected = data.replace(CUBIN_75.payload, bytes(len(CUBIN_75.payload)))
    assert changed == expected.replace(CUBIN_80.payload, bytes(len(CUBIN_80.payload)))


def test_library_without_gpu_code_has_no_images() -> None:
    data = library([]).replace(b".nv_fatbin", b".something")
    assert images(data) == []


def test_what_is_not_understood_is_refused() -> None:
    whole = library([[CUBIN_75, CUBIN_90]])
    start = images(whole)[0].start
    for damaged in (
        b"MZ" + whole[2:],
        library([[CUBIN_75]], wrappers=2),
        whole.replace(b"\x50\xed\x55\xba", b"\x51\xed\x55\xba"),
        whole[: start - 64] + b"\x09" + whole[start - 63 :],
        whole[:-40],
    ):
        with pytest.raises(FatbinError):
            blank(damaged, 90)


@given(st.binary(max_size=400), st.integers(0, 399))
def test_damage_is_refused_or_harmless(noise: bytes, at: int) -> None:
    data = bytearray(library([[CUBIN_75, CUBIN_90A, PTX_80]]))
    data[at : at + len(noise)] = noise
    try:
        changed, dropped = blank(bytes(data), 90)
    except FatbinError:
        return
    assert len(changed) == len(data)
    assert sum(a != b for a, b in zip(changed, data, strict=True)) <= sum(d.size for d in dropped)


@pytest.mark.parametrize("text", ["90", "sm_9", "compute_90", "sm_90x"])
def test_architecture_must_be_named_as_nvcc_does(text: str) -> None:
    assert parse_arch("sm_90a") == parse_arch("sm_90") == 90
    with pytest.raises(FatbinError):
        parse_arch(text)


def test_groups_stay_apart() -> None:
    found = images(library([[CUBIN_75], [CUBIN_75, CUBIN_80], [PTX_80]]))
    assert [len(list(g)) for _, g in groupby(found, key=lambda i: i.group)] == [1, 2, 1]
