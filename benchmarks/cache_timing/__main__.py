"""Whether the time to first token tells one tenant what another has asked:

    python -m benchmarks.cache_timing --trials 400
    python -m benchmarks.cache_timing --url http://127.0.0.1:8000 --keys sk-...,sk-...

AUC of "this prefix was asked before", from TTFT: across tenants it must be all but 0.5;
within a tenant, where the cache is shared, it is near 1, which shows that the measurement
can tell. With `--url` the stack runs already and the keys are of two tenants; else the
command after `--` (by default `corral serve`) starts one, and the keys are made.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cache_timing.trials import PATHS, PREFIX_WORDS, Asker, Trial, run_trials
from benchmarks.report import command_line, environment, table, write
from benchmarks.sides import Side, SideConfig, SideError, running
from benchmarks.statistics import auc, bootstrap

RESULTS = Path("benchmarks/results")
BAR = 0.55
"""AUC across tenants that must not be exceeded."""
CONTROL_BAR = 0.9
"""AUC within a tenant that must be reached: less, and the measurement is blind."""
WARM_UP = 6
COMMAND = ("{python}", "-m", "serving.cli", "serve", "--set", "gateway.port={port}")


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    out = args.out or RESULTS / f"cache_timing-{time.strftime('%Y%m%d-%H%M%S')}.json"
    where = environment(command_line())
    home = Path(os.environ.get("CORRAL_HOME") or "~/.corral").expanduser()
    side = SideConfig(
        name="stack",
        url=args.url or "",
        command=tuple(command) or COMMAND,
        ready="/ready",
        model=args.model,
        credentials=str(home / "credentials"),
        start_timeout_s=600.0,
    )
    try:
        with running(side, out.parent / "logs") as stack:
            cases = _measure(stack, args)
    except (SideError, RuntimeError, OSError) as exc:
        print(exc, file=sys.stderr)
        return 2
    across, within = cases["across tenants"]["auc"], cases["within a tenant"]["auc"]
    met = across["value"] <= BAR and within["value"] >= CONTROL_BAR
    bars = {"bar": BAR, "control_bar": CONTROL_BAR, "met": met}
    write(
        out,
        {
            **where,
            "benchmark": "cache_timing",
            "seed": args.seed,
            "words": args.words,
            **bars,
            "cases": cases,
        },
    )
    print(_markdown(cases))
    wanted = f"wanted at most {BAR} across, at least {CONTROL_BAR} within"
    print(f"\n{wanted}: {'met' if met else 'NOT MET'}\n{out}")
    return 1 if args.enforce and not met else 0


def _measure(stack: Side, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    keys = args.keys.split(",") if args.keys else [_key_of_new_tenant(stack) for _ in range(2)]
    somebody, watcher = (Asker(stack.url, key, stack.model) for key in keys)
    pairs = {"across tenants": (somebody, watcher), "within a tenant": (watcher, watcher)}
    run_trials(somebody, watcher, WARM_UP, args.seed - 1, words=args.words)
    cases = {}
    for place, (name, (first, second)) in enumerate(pairs.items()):
        trials = args.trials if name == "across tenants" else args.control_trials or args.trials
        found = run_trials(first, second, trials, args.seed + place, words=args.words)
        cases[name] = _summary(found)
        print(f"{name}: {trials} trials", file=sys.stderr, flush=True)
    return cases


def _summary(found: Sequence[Trial]) -> dict[str, Any]:
    asked = [trial.asked.ttft_s for trial in found]
    fresh = [trial.fresh.ttft_s for trial in found]
    return {
        "trials": len(found),
        "auc": asdict(bootstrap(asked, fresh, auc)),
        "auc_by_path": {
            path: auc(
                [trial.asked.ttft_s for trial in found if trial.path == path],
                [trial.fresh.ttft_s for trial in found if trial.path == path],
            )
            for path in PATHS
        },
        "cached_tokens_of_asked": sum(trial.asked.cached_tokens for trial in found) / len(found),
        "median_ttft_ms": {"asked": 1e3 * median(asked), "fresh": 1e3 * median(fresh)},
        "ttfts_s": {"asked": asked, "fresh": fresh},
    }


def _key_of_new_tenant(stack: Side) -> str:
    tenant = f"cache-timing-{secrets.token_hex(4)}"
    _post(stack, "/admin/tenants", {"id": tenant})
    return str(_post(stack, "/admin/keys", {"tenant": tenant})["secret"])


def _post(stack: Side, path: str, body: Mapping[str, str]) -> dict[str, Any]:
    headers = {"content-type": "application/json", **stack.headers}
    request = urllib.request.Request(stack.url + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def _markdown(cases: Mapping[str, dict[str, Any]]) -> str:
    columns = ("prefix asked before", "trials", "AUC", "95 %", "asked ms", "fresh ms", "cached")
    rows = []
    for name, case in cases.items():
        found, ttft = case["auc"], case["median_ttft_ms"]
        spread = f"{found['low']:.3f}–{found['high']:.3f}"
        times = (f"{ttft['asked']:.0f}", f"{ttft['fresh']:.0f}")
        cached = f"{case['cached_tokens_of_asked']:.0f}"
        rows.append((name, str(case["trials"]), f"{found['value']:.3f}", spread, *times, cached))
    return table(columns, rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.cache_timing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--trials", type=int, default=400, help="pairs of requests to time")
    parser.add_argument("--control-trials", type=int, help="within a tenant; by default as many")
    parser.add_argument("--words", type=int, default=PREFIX_WORDS, help="of a prefix")
    parser.add_argument("--seed", type=int, default=1, help="of the prefixes")
    parser.add_argument("--url", help="a stack that runs already")
    parser.add_argument("--keys", help="two keys, of two tenants, with a comma between")
    parser.add_argument("--model", default="smollm2-135m", help="a generating model")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    parser.add_argument("--enforce", action="store_true", help="exit 1 unless the bars are met")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the stack, after `--`")
    return parser


if __name__ == "__main__":
    sys.exit(main())
