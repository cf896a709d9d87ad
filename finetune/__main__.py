"""Fine-tunes an adapter, and checks data before anything is trained on it:

    python -m finetune run conversations.jsonl
    python -m finetune run --config mine.yaml --set train.epochs=5 --run runs/mine
    python -m finetune check train.parquet --validation held-out.jsonl --out card

`check` reports every bad row, statistics and the data card. Exit status 0 if the data can be
trained on, 1 if any row is bad, 2 if something could not be read at all.

`run` writes everything into one folder; on a folder that holds a run it goes on from the last
checkpoint. Exit status 0 if it succeeded, 1 if data, model or settings were refused, 2 if there
was nothing to run, 75 if it was stopped by a signal and can go on, 70 if it crashed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import configs
from configs import ConfigError, load
from finetune.base_model import find_model, models_folder
from finetune.check_command import check_data
from finetune.config import FinetuneConfig, Format
from finetune.data.formats import FORMATS
from finetune.errors import FinetuneError
from finetune.run_command import run_config

CONFIGS = Path(configs.__file__).parent / "finetune"
DEFAULT = "smollm2-135m"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    args = _parser().parse_args(argv)
    try:
        config = load(FinetuneConfig, config_path(args.config), _overrides(args))
        if args.command == "run":
            return run_config(config, args.run, as_json=args.json)
        model = None if args.no_tokens else _model(config, explicit=args.model is not None)
        return check_data(config.data, model, args.out, as_json=args.json)
    except (ConfigError, FinetuneError) as exc:
        print(exc, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def config_path(name: str) -> Path:
    """A file, or the name of one in `configs/finetune/`."""
    shipped = CONFIGS / f"{name.removesuffix('.yaml')}.yaml"
    return shipped if "/" not in name and shipped.is_file() else Path(name)


def _overrides(args: argparse.Namespace) -> list[str]:
    """What the arguments set, before what `--set` does."""
    found = []
    for field, files in (("train", args.files), ("validation", args.validation)):
        if files:
            sources = [_source(name, args.format) for name in files]
            found.append(f"data.{field}={json.dumps(sources)}")
    if args.model is not None:
        found.append(f"model={json.dumps(args.model)}")
    return [*found, *args.set]


def _source(name: str, format: Format | None) -> dict[str, str]:
    return {"kind": "file", "path": name, "format": format or "auto"}


def _model(config: FinetuneConfig, *, explicit: bool) -> Path | None:
    try:
        return find_model(config.model, models_folder())
    except FinetuneError as exc:
        if explicit:
            raise
        print(f"tokens are not counted: {exc}", file=sys.stderr)
        return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m finetune",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="report bad rows, statistics and the data card")
    _add_config(check)
    check.add_argument("--no-tokens", action="store_true", help="do not tokenise")
    check.add_argument("--out", type=Path, metavar="DIR", help="write card.md and card.json there")
    check.add_argument("--json", action="store_true", help="print the card as JSON")
    run = commands.add_parser("run", help="train an adapter, or go on with a run")
    _add_config(run)
    run.add_argument("--run", type=Path, metavar="DIR", help="its folder; default: a new one")
    run.add_argument("--json", action="store_true", help="print the summary as JSON")
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", metavar="FILE", help="training data: JSONL, Parquet")
    parser.add_argument("--validation", action="append", default=[], metavar="FILE")
    parser.add_argument("--format", choices=FORMATS, help="of the files; default: by their fields")
    parser.add_argument("--config", default=DEFAULT, help="a file, or a name in configs/finetune/")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE")
    parser.add_argument("--model", metavar="DIR", help="the base model; default: config's")


if __name__ == "__main__":
    sys.exit(main())
