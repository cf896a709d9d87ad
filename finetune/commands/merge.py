"""Adds an adapter into its base model's weights: a model of its own, in the base model's dtype.

    python -m finetune merge mine-1 --out merged
    python -m finetune merge runs/mine/adapter --base models/llama-3.1-8b-instruct --out merged

A, which may be a run's folder or name, or an adapter's folder, stays as it is. The result is
written whole (safetensors, tokenizer, lineage) and can be served like any model. Serving the
adapter itself takes less memory: merge for tools that know no adapters.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from finetune.base_model import find_model, models_folder
from finetune.commands.options import adapter_at

NAME = "merge"
SUMMARY = "an adapter and its base model to one whole model"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("adapter", metavar="A", help="a run, or an adapter's folder")
    parser.add_argument("--base", metavar="DIR", help="default: the one that the adapter names")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="must not exist")


def run(args: argparse.Namespace) -> int:
    """Merge."""
    from finetune.merge import base_of, merge

    adapter = adapter_at(args.adapter)
    base = find_model(args.base, models_folder()) if args.base else base_of(adapter)
    print(merge(adapter, base, args.out))
    return 0
