"""Checks data before anything is trained on it:

    python -m finetune check conversations.jsonl
    python -m finetune check train.parquet --validation held-out.jsonl --out card
    python -m finetune check --config mine.yaml --model DIR --set data.max_length=4096

Reports every bad row, statistics and the data card. Exit status 0 if the data can be trained
on, 1 if any row is bad, 2 if something could not be read at all.
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

CONFIGS = Path(configs.__file__).parent / "finetune"
DEFAULT = "smollm2-135m"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    args = _parser().parse_args(argv)
    try:
        config = load(FinetuneConfig, config_path(args.config), _overrides(args))
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
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="report bad rows, statistics and the data card")
    check.add_argument("files", nargs="*", metavar="FILE", help="training data: JSONL, Parquet")
    check.add_argument("--validation", action="append", default=[], metavar="FILE")
    check.add_argument("--format", choices=FORMATS, help="of the files; default: by their fields")
    check.add_argument("--config", default=DEFAULT, help="a file, or a name in configs/finetune/")
    check.add_argument("--set", action="append", default=[], metavar="A.B=VALUE")
    check.add_argument("--model", metavar="DIR", help="whose tokenizer counts; default: config's")
    check.add_argument("--no-tokens", action="store_true", help="do not tokenise")
    check.add_argument("--out", type=Path, metavar="DIR", help="write card.md and card.json there")
    check.add_argument("--json", action="store_true", help="print the card as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
