"""Writes a model, or an adapter merged into its base model, in another form.

    python -m finetune export mine-1 --format gguf --out mine.gguf
    python -m finetune export merged --format gguf --type q8_0 --out mine-q8.gguf
    python -m finetune export mine-1 --format onnx --out mine-onnx

gguf (Llama and Mistral with a byte-level BPE tokenizer) is for llama.cpp and what is built on it;
q8_0 is half the size of f16. onnx is a folder with a float32 graph from token ids and mask to
logits, without a cache: for scoring, not for fast generation; needs onnx and onnxscript.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from finetune.base_model import find_model, models_folder
from finetune.commands.options import adapter_at
from finetune.errors import ExportFailed

NAME = "export"
SUMMARY = "GGUF or ONNX of a model or an adapter"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("model", metavar="M", help="a run, an adapter's or a model's folder")
    parser.add_argument("--format", choices=["gguf", "onnx"], required=True)
    parser.add_argument("--type", choices=["f32", "f16", "q8_0"], default="f16", help="of gguf")
    parser.add_argument("--pre", help="of gguf: llama.cpp's name of the pre-tokenizer")
    parser.add_argument("--base", metavar="DIR", help="default: the one that the adapter names")
    parser.add_argument("--out", type=Path, required=True, metavar="PATH", help="must not exist")


def run(args: argparse.Namespace) -> int:
    """Merge where it is an adapter, and write."""
    from finetune.merge import base_of, merge

    try:
        adapter = adapter_at(args.model)
    except ExportFailed:
        return _write(find_model(args.model, models_folder()), args)
    base = find_model(args.base, models_folder()) if args.base else base_of(adapter)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".merged-", dir=args.out.parent) as name:
        return _write(merge(adapter, base, Path(name, "model")), args)


def _write(model: Path, args: argparse.Namespace) -> int:
    if args.format == "gguf":
        from finetune.conversion.gguf_file import write_gguf

        print(write_gguf(model, args.out, args.type, args.pre))
    else:
        from finetune.conversion.onnx_file import write_onnx

        print(write_onnx(model, args.out))
    return 0
