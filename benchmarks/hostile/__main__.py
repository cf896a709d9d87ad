"""Sends hostile requests to a stack, and says what came of them:

    python -m benchmarks.hostile --cases 100000 -- corral serve --config fake --set gateway.port={port}
    python -m benchmarks.hostile --cases 10000 --url http://127.0.0.1:8000 --key sk-...

With `--url` the stack runs already; else the command after `--` starts one, `{port}`
becoming a free port. Status 1 when anything failed or a replica was replaced. Every run
with the same `--seed` sends the same requests.
"""  # noqa: E501

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.hostile.cases import Tally, attack, replicas
from benchmarks.report import command_line, environment, write
from benchmarks.sides import SideConfig, SideError, home_credentials, running

RESULTS = Path("benchmarks/results")
EXAMPLES = 400
"""Generated requests an operation in one round, for each of valid and broken."""


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    out = args.out or RESULTS / f"hostile-{time.strftime('%Y%m%d-%H%M%S')}.json"
    where = environment(command_line())
    try:
        side = SideConfig(
            name="stack",
            url=args.url or "",
            command=tuple(command),
            ready="/ready",
            credentials=home_credentials(),
            start_timeout_s=600.0,
        )
        with running(side, out.parent / "logs") as stack:
            own = stack.headers.get("authorization", "").removeprefix("Bearer ")
            tally, gone = _rounds(stack.url, args.key or own, args.cases, args.seed)
    except SideError as exc:
        print(exc, file=sys.stderr)
        return 2
    counts = {"cases": tally.cases, "failures": tally.failures, "seconds": tally.seconds}
    write(out, {**where, "benchmark": "hostile", "seed": args.seed, "replaced": gone, **counts})
    if tally.failures:
        print(tally.output)
    print(
        f"{tally.cases} cases in {tally.seconds:.0f} s: {tally.failures} failed, "
        f"{len(gone)} replicas replaced\n{out}"
    )
    return 1 if tally.failures or gone else 0


def _rounds(url: str, key: str, cases: int, seed: int) -> tuple[Tally, list[str]]:
    """Rounds of new seeds until there are that many cases; the boundary values once."""
    before = replicas(url, key)
    tally = attack(url, key=key, seed=seed, examples=min(EXAMPLES, 1 + cases // 100))
    while tally.cases < cases and not tally.failures:
        seed += 1
        more = attack(url, key=key, seed=seed, examples=EXAMPLES, phases=("fuzzing", "stateful"))
        tally += more
        print(f"{tally.cases} of {cases} cases, {tally.failures} failed", flush=True)
    return tally, sorted(before - replicas(url, key))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.hostile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cases", type=int, default=1000, help="requests to send, at least")
    parser.add_argument("--seed", type=int, default=1, help="of the first round")
    parser.add_argument("--url", help="a stack that runs already")
    parser.add_argument("--key", help="by default the admin key of $CORRAL_HOME")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the stack, after `--`")
    return parser


if __name__ == "__main__":
    sys.exit(main())
