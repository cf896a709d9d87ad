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
from pathlib import Path

from finetune.base_model import find_model, load_tokenizer, models_folder
from finetune.commands.options import config_arguments, config_of, data_arguments
from finetune.config import DataConfig, FinetuneConfig
from finetune.data.card import DataCard
from finetune.data.check import check
from finetune.data.rows import Fault
from finetune.data.tokenise import tokenise
from finetune.errors import FinetuneError

NAME = "check"
SUMMARY = "report bad rows, statistics and the data card"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    data_arguments(parser)
    config_arguments(parser)
    parser.add_argument("--no-tokens", action="store_true", help="do not tokenise")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write card.md and card.json there")
    parser.add_argument("--json", action="store_true", help="print the card as JSON")


def run(args: argparse.Namespace) -> int:
    """Check, and print the report."""
    config = config_of(args)
    model = None if args.no_tokens else _model(config, explicit=args.model is not None)
    return check_data(config.data, model, args.out, as_json=args.json)


def check_data(data: DataConfig, model: Path | None, out: Path | None, *, as_json: bool) -> int:
    """Print every fault (standard error) and the card (standard output); 1 if any row is bad.

    The tokenizer of the folder `model` is loaded only if the first pass found nothing wrong.
    Raises FinetuneError for what cannot be read at all.
    """
    checked = check(data, _say)
    card = DataCard(data, checked)
    faults = list(checked.faults)
    if model is not None and not faults:
        chat = load_tokenizer(data, model)
        tokenised = tokenise(data, chat, _say)
        faults = tokenised.faults
        if tokenised.version != checked.version:
            faults.append(Fault("the data", 0, "", "changed while it was read: check it again"))
        card = DataCard(data, checked, str(model), tokenised)
    for fault in faults:
        print(fault, file=sys.stderr)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(card.as_json(), indent=2, ensure_ascii=False)
        (out / "card.json").write_text(f"{text}\n", encoding="utf-8")
        (out / "card.md").write_text(card.as_markdown(), encoding="utf-8")
    print(json.dumps(card.as_json(), ensure_ascii=False) if as_json else card.as_markdown())
    rows = len({(fault.source, fault.row) for fault in faults})
    if rows:
        print(f"faults: {len(faults)}, all listed; rows or files: {rows}", file=sys.stderr)
    return 1 if faults else 0


def _model(config: FinetuneConfig, *, explicit: bool) -> Path | None:
    try:
        return find_model(config.model, models_folder())
    except FinetuneError as exc:
        if explicit:
            raise
        print(f"tokens are not counted: {exc}", file=sys.stderr)
        return None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
