from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.dataplane.compare import as_json, check_bars, markdown, rows
from benchmarks.dataplane.config import DataplaneConfig
from benchmarks.load import LoadResult, LoadSpec
from benchmarks.report import environment, table, write
from benchmarks.rounds import Measurement, measure, run_rounds
from benchmarks.sides import SideConfig, SideError, start_sides
from configs import ConfigError, load, parse

CONFIG = Path(__file__).parents[3] / "configs/bench/dataplane.yaml"
FAKE = ("{python}", "-m", "serving.engines.fake", "--port", "{port}", "--interval", "0.002")
SIDES = [{"name": name} for name in ("direct", "lease", "plain-handle")]


@pytest.fixture
def config() -> DataplaneConfig:
    return parse(DataplaneConfig, {"sides": SIDES, "cells": [{"streams": 1}, {"streams": 128}]})


def run(side: str, streams: int, rate: float, ttft_ms: float) -> Measurement:
    loaded = LoadResult(duration=2.0, max_concurrency=streams, chunks=int(rate * 2))
    loaded.reads, loaded.client_cpu_s, loaded.ttfts = loaded.chunks, 0.1, [ttft_ms / 1e3] * 5
    return Measurement(side, 0, loaded, server_cpu_s=0.5)


def results(lease_rate: float, lease_ttft_ms: float) -> dict[int, list[Measurement]]:
    return {
        1: [run("direct", 1, 100, 10), run("lease", 1, 100, lease_ttft_ms)],
        128: [
            run("direct", 128, 10_000, 12),
            run("lease", 128, lease_rate, 20),
            run("plain-handle", 128, 2_000, 900),
        ],
    }


def test_rows_compare_every_side_with_the_direct_path(config: DataplaneConfig) -> None:
    found = {(row.side, row.max_concurrency): row for row in rows(config, results(9_000, 13))}
    assert len(found) == 5
    lease = found["lease", 128]
    assert lease.of_direct.value == pytest.approx(0.9)
    assert lease.of_plain.value == pytest.approx(4.5)
    assert lease.added_ttft_ms.value == pytest.approx(8.0)
    assert lease.server_cpu_us_per_chunk == pytest.approx(0.5e6 / 18_000)
    assert lease.client_ceiling == pytest.approx(180_000)
    assert found["lease", 1].added_ttft_ms.value == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("rate", "ttft_ms", "met"),
    [
        (9_000, 13, [True, True, True]),
        (8_400, 15.5, [False, False, True]),
        (7_900, 10, [False, True, False]),
    ],
)
def test_bars_are_met_or_not(
    config: DataplaneConfig, rate: float, ttft_ms: float, met: list[bool]
) -> None:
    found = rows(config, results(rate, ttft_ms))
    bars = check_bars(config, found)
    assert [bar.met for bar in bars] == met
    assert ("NOT MET" in markdown(found, bars)) is (not all(met))


def test_without_a_lease_there_are_no_bars(config: DataplaneConfig) -> None:
    only = {1: [run("direct", 1, 100, 10)]}
    assert check_bars(config, rows(config, only)) == []


def test_results_are_valid_json_even_where_a_ratio_is_missing(
    config: DataplaneConfig, tmp_path: Path
) -> None:
    only = {1: [run("direct", 1, 100, 10)]}
    found = rows(config, only)
    out = tmp_path / "deep" / "result.json"
    write(out, environment(["x"]) | as_json(found, [], only))
    assert '"value": null' in out.read_text()


def test_tables_are_markdown() -> None:
    assert table(("a", "b"), [("x", "10")]) == "| a |  b |\n| - | -: |\n| x | 10 |"


def test_the_shipped_configuration_is_valid_and_sides_need_names_of_their_own() -> None:
    shipped = load(DataplaneConfig, CONFIG)
    assert [side.name for side in shipped.sides][:3] == ["direct", "lease", "plain-handle"]
    with pytest.raises(ConfigError, match="different names"):
        load(DataplaneConfig, CONFIG, ["sides.1.name=direct"])
    with pytest.raises(ConfigError, match="no side is called"):
        load(DataplaneConfig, CONFIG, ["direct=nobody"])


def test_sides_are_started_measured_in_turn_and_ended(tmp_path: Path) -> None:
    sides = [SideConfig(name=name, command=FAKE) for name in ("a", "b")]
    spec = LoadSpec(
        url="", model="", streams=2, max_tokens=8, warmup_s=0.0, duration_s=0.15, ramp_s=0.0
    )
    with start_sides(sides, tmp_path) as started:
        runs = run_rounds(started, spec, rounds=2)
        assert all(side.cpu_s() > 0 for side in started)
        processes = [process for side in started for process in side.processes()]
        assert [side.model for side in started] == ["fake", "fake"]
        other = SideConfig(name="given", url=started[0].url)
        with start_sides([other], tmp_path) as given:
            assert given[0].processes() == []
            assert (
                measure(
                    given[0], LoadSpec(**spec.__dict__ | {"url": given[0].url, "model": "fake"})
                ).server_cpu_s
                == 0
            )
    assert [(one.side, one.round) for one in runs] == [("a", 0), ("b", 0), ("b", 1), ("a", 1)]
    assert all(one.load.chunks > 0 for one in runs)
    assert len(processes) == 2
    assert not any(process.is_running() for process in processes)


def test_a_side_that_cannot_start_says_why(tmp_path: Path) -> None:
    broken = SideConfig(name="broken", command=("{python}", "-c", "raise SystemExit('no luck')"))
    with pytest.raises(SideError, match="no luck"), start_sides([broken], tmp_path):
        pytest.fail("a side that ended cannot be ready")


def test_json_in_a_command_is_left_as_it_is(tmp_path: Path) -> None:
    says = ("{python}", "-c", "import sys; raise SystemExit(sys.argv[1])", '{"top_p": 0.9}')
    echo = SideConfig(name="echo", command=says)
    with pytest.raises(SideError, match=r'\{"top_p": 0.9\}'), start_sides([echo], tmp_path):
        pytest.fail("a side that ended cannot be ready")
