from __future__ import annotations

import psutil
import pytest

from benchmarks.footprint.processes import footprints, role


@pytest.mark.parametrize(
    ("cmdline", "expected"),
    [
        (["/usr/bin/python3.11", "-m", "serving.cli", "serve"], "serving.cli"),
        (["python", "-u", "/opt/ray/dashboard/agent.py", "--x"], "agent.py"),
        (
            ["python", "-c", "from multiprocessing.spawn import spawn_main; ..."],
            "multiprocessing.spawn",
        ),
        (["ray::ServeReplica:default:Gateway.handle_request"], "ray::ServeReplica:default:Gateway"),
        (["ray::IDLE"], "ray::IDLE"),
        (["VLLM::EngineCore"], "VLLM::EngineCore"),
        (["/opt/ray/raylet", "--socket"], "raylet"),
    ],
)
def test_roles_are_short_names(cmdline: list[str], expected: str) -> None:
    assert role(cmdline) == expected


def test_memory_of_a_live_process_is_told() -> None:
    (own,) = footprints([psutil.Process()])
    assert own.pid == psutil.Process().pid
    assert 0 < own.pss_mib <= own.rss_mib * 1.01
    assert own.cpu_s > 0
