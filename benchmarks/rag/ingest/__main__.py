"""Ingests the same folder with `python -m rag ingest` and with the LangChain pipeline, in turns.

    python -m benchmarks.rag.ingest FOLDER [--model all-minilm-l6-v2] [--rounds 3]

Each round runs both, the one that goes first alternating; each run has a process and an index
of its own. Neither counts the loading of the model. Prints medians and stages.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Result = dict[str, Any]


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="all-minilm-l6-v2", help="in $CORRAL_HOME/models")
    parser.add_argument("--chunk-tokens", type=int, default=254)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fake", action="store_true", help="corral alone, without a model")
    args = parser.parse_args()
    home = Path(os.environ.get("CORRAL_HOME") or "~/.corral").expanduser()
    sides: dict[str, Callable[[], Result]] = {
        "corral": lambda: _corral(args, home),
        "langchain": lambda: _langchain(args, home),
    }
    if args.fake:
        del sides["langchain"]
    results: dict[str, list[Result]] = {name: [] for name in sides}
    for number in range(args.rounds):
        for name in list(sides) if number % 2 == 0 else list(reversed(sides)):
            results[name].append(sides[name]())
    _print(results)


def _corral(args: argparse.Namespace, home: Path) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        embed = "embed.kind=fake" if args.fake else f"embed.model={args.model}"
        options = ["--set", embed, "--set", f"index.path={folder}/index", "--json"]
        options += ["--set", f"split.max_tokens={args.chunk_tokens}"]
        config = "fake" if args.fake else "default"
        command = ["-m", "rag", "ingest", str(args.folder.resolve()), "--config", config, *options]
        return _run(command, home)


def _langchain(args: argparse.Namespace, home: Path) -> Result:
    model = home / "models" / args.model
    module = "benchmarks.rag.ingest.langchain_pipeline"
    return _run(["-m", module, str(args.folder), str(model), str(args.chunk_tokens)], home)


def _run(command: list[str], home: Path) -> Result:
    environment = os.environ | {"CORRAL_HOME": str(home), "TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    found: Result = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _print(results: dict[str, list[Result]]) -> None:
    print("| | files/s | chunks/s | s | parse s | split s | embed s | index s |")
    print("|---|---|---|---|---|---|---|---|")
    for name, runs in results.items():
        elapsed = statistics.median(run["elapsed_s"] for run in runs)
        stages = [
            f"{statistics.median(run['stage_s'][stage] for run in runs):.2f}"
            for stage in ("parse", "split", "embed", "index")
        ]
        files, chunks = runs[0]["files_done"] / elapsed, runs[0]["chunks"] / elapsed
        print(f"| {name} | {files:.1f} | {chunks:.1f} | {elapsed:.2f} | {' | '.join(stages)} |")


if __name__ == "__main__":
    main()
