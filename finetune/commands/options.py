"""Arguments that several commands have: which configuration, which files, which model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import configs
from configs import load
from finetune.config import FinetuneConfig, Format
from finetune.data.formats import FORMATS

CONFIGS = Path(configs.__file__).parent / "finetune"
DEFAULT = "smollm2-135m"


def config_arguments(parser: argparse.ArgumentParser) -> None:
    """`--config` and `--set`."""
    parser.add_argument("--config", default=DEFAULT, help="a file, or a name in configs/finetune/")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="A.B=VALUE",
        help="override one field; may be repeated",
    )


def data_arguments(parser: argparse.ArgumentParser) -> None:
    """Training files, `--validation`, `--format` and `--model`, which override the config's."""
    parser.add_argument("files", nargs="*", metavar="FILE", help="training data: JSONL, Parquet")
    parser.add_argument("--validation", action="append", default=[], metavar="FILE")
    parser.add_argument("--format", choices=FORMATS, help="of the files; default: by their fields")
    parser.add_argument("--model", metavar="DIR", help="the base model; default: the config's")


def config_of(args: argparse.Namespace) -> FinetuneConfig:
    """The configuration that the arguments describe. Raises ConfigError."""
    return load(FinetuneConfig, config_path(args.config), _overrides(args))


def config_path(name: str) -> Path:
    """A file, or the name of one in `configs/finetune/`."""
    shipped = CONFIGS / f"{name.removesuffix('.yaml')}.yaml"
    return shipped if "/" not in name and shipped.is_file() else Path(name)


def _overrides(args: argparse.Namespace) -> list[str]:
    """What the arguments set, before what `--set` does."""
    found = []
    for field in ("files", "validation"):
        files = getattr(args, field, None)
        if files:
            sources = [_source(name, args.format) for name in files]
            found.append(f"data.{'train' if field == 'files' else field}={json.dumps(sources)}")
    if getattr(args, "model", None) is not None:
        found.append(f"model={json.dumps(args.model)}")
    return [*found, *args.set]


def _source(name: str, format: Format | None) -> dict[str, str]:
    return {"kind": "file", "path": name, "format": format or "auto"}
