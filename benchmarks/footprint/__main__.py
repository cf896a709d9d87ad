"""Starts a stack, and tells how long that took and what each process holds once it idles:

    python -m benchmarks.footprint -- corral serve --set gateway.port={port}

`{port}` becomes a free port, `{python}` this interpreter, `{home}` an empty folder; a
command without `{port}` is expected at `--port`. Phases are the lines that the command
prints, with the time of each.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.footprint.processes import Footprint, footprints
from benchmarks.phases import Phases
from benchmarks.report import command_line, environment, table, write
from benchmarks.sides import SideConfig, SideError, running

RESULTS = Path("benchmarks/results")


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    out = args.out or RESULTS / f"footprint-{time.strftime('%Y%m%d-%H%M%S')}.json"
    free = any("{port}" in word for word in command)
    side = SideConfig(
        name="stack",
        command=tuple(command),
        ready=args.ready,
        model="-",  # nobody is asked anything
        port=0 if free else args.port,
        start_timeout_s=args.timeout,
    )
    where = environment(command_line())
    phases = Phases()
    try:
        with running(side, out.parent / "logs", phases.read) as stack:
            time.sleep(args.settle)
            found = footprints(stack.processes())
            idle = stack.idle_cpu_share(5.0)
    except SideError as exc:
        print(exc, file=sys.stderr)
        return 2
    result = {
        **where,
        "benchmark": "footprint",
        "stack": list(command),
        "ready_s": stack.ready_s,
        "idle_cores": idle,
        "pss_mib": sum(one.pss_mib for one in found),
        "phases": [{"at_s": at, "line": line} for at, line in phases.lines],
        "processes": [asdict(one) for one in found],
    }
    write(out, result)
    print(_markdown(found))
    print(f"\nready after {stack.ready_s:.1f} s, idles at {idle:.3f} cores")
    for at, line in phases.lines:
        if line:
            print(f"{at:7.1f} s  {line[:100]}")
    print(out)
    return 0


def _markdown(found: Sequence[Footprint]) -> str:
    rows = [
        (one.role, f"{one.pss_mib:.0f}", f"{one.rss_mib:.0f}", str(one.threads), f"{one.cpu_s:.1f}")
        for one in found
    ]
    pss, rss = sum(one.pss_mib for one in found), sum(one.rss_mib for one in found)
    threads, cpu = sum(one.threads for one in found), sum(one.cpu_s for one in found)
    total = (f"{len(found)} processes", f"{pss:.0f}", f"{rss:.0f}", str(threads), f"{cpu:.1f}")
    return table(("process", "PSS MiB", "RSS MiB", "threads", "CPU s"), [*rows, total])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.footprint",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--ready", default="/ready", help="path that answers 200 when ready")
    parser.add_argument("--port", type=int, default=8000, help="where a fixed command listens")
    parser.add_argument("--settle", type=float, default=3.0, help="seconds to wait once ready")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds to wait for ready")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the stack, after `--`")
    return parser


if __name__ == "__main__":
    sys.exit(main())
