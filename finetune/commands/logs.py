"""Shows what a run did, line by line.

    python -m finetune logs smollm2-135m-3
    python -m finetune logs -f runs/mine
    python -m finetune logs mine-1 --json | jq .data.train_loss

With -f it goes on until the run ends; Ctrl-C ends the showing, not the run. Exit status 1 if the
run that was followed failed or was killed.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

from finetune.events import Event, read_events
from finetune.progress import metrics_line
from finetune.runs import find_run, view

NAME = "logs"
SUMMARY = "what a run did and does"
_POLL_S = 0.5
_ENDS = ("succeeded", "failed", "interrupted", "killed")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("run", help="a run's folder, or its name")
    parser.add_argument("-f", "--follow", action="store_true", help="until it ends")
    parser.add_argument("-n", "--lines", type=int, metavar="N", help="begin with the last N")
    parser.add_argument("--json", action="store_true", help="print events as JSON")


def run(args: argparse.Namespace) -> int:
    """Print them."""
    folder = find_run(args.run)
    page = read_events(folder)
    events = page.events[-args.lines :] if args.lines else page.events
    for event in events:
        print(_line(event, as_json=args.json), flush=True)
    return _follow(folder, page.after, as_json=args.json) if args.follow else 0


def _follow(folder: Path, after: int, *, as_json: bool) -> int:
    while True:
        # Looked at first: what it wrote before its end is then read below.
        state = view(folder).state
        page = read_events(folder, after)
        after = page.after
        for event in page.events:
            print(_line(event, as_json=as_json), flush=True)
        if state in _ENDS:
            return 1 if state in ("failed", "killed") else 0
        time.sleep(_POLL_S)


def _line(event: Event, *, as_json: bool) -> str:
    if as_json:
        return json.dumps(asdict(event), ensure_ascii=False)
    clock = time.strftime("%H:%M:%S", time.localtime(event.at))
    text = metrics_line(event) if event.type == "metrics" else event.message
    return f"{clock}  {text}" if event.level == "info" else f"{clock}  {event.level}: {text}"
