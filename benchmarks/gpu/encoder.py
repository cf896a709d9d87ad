"""Writes a small sentence encoder with random weights: MiniLM-L6's architecture.

What sentence-transformers loads: a BERT of 6 layers and 22.7 million parameters, mean
pooling, normalisation. For hosts that have no embedding model; its speed is the same.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["write_encoder"]

HIDDEN, INNER, LAYERS, VOCAB, POSITIONS = 384, 1536, 6, 30_522, 512
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONFIG = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 12,
    "vocab_size": VOCAB,
    "max_position_embeddings": POSITIONS,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
MODULES = ("Transformer", "Pooling", "Normalize")


def write_encoder(path: Path, words: list[str]) -> None:
    """The model directory; each of `words` is one token. Does nothing where it exists."""
    from safetensors.numpy import save_file

    if (path / "modules.json").exists():
        return
    (path / "1_Pooling").mkdir(parents=True, exist_ok=True)
    save_file(_weights(), path / "model.safetensors", metadata={"format": "pt"})
    _write_tokenizer(path, words)
    files = {
        "config.json": CONFIG,
        "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": False},
        "1_Pooling/config.json": {
            "word_embedding_dimension": HIDDEN,
            "pooling_mode_mean_tokens": True,
        },
        "modules.json": [
            {
                "idx": index,
                "name": str(index),
                "path": "" if index == 0 else f"{index}_{kind}",
                "type": f"sentence_transformers.models.{kind}",
            }
            for index, kind in enumerate(MODULES)
        ],
    }
    for name, content in files.items():
        (path / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _weights() -> dict[str, NDArray[np.float32]]:
    """By the names of transformers' BertModel."""
    draw = np.random.default_rng(0)
    found: dict[str, NDArray[np.float32]] = {}

    def matrix(name: str, *size: int) -> None:
        found[f"{name}.weight"] = draw.normal(0, 0.02, size).astype(np.float32)

    def linear(name: str, inputs: int, outputs: int) -> None:
        matrix(name, outputs, inputs)
        found[f"{name}.bias"] = np.zeros(outputs, np.float32)

    def norm(name: str) -> None:
        found[f"{name}.weight"] = np.ones(HIDDEN, np.float32)
        found[f"{name}.bias"] = np.zeros(HIDDEN, np.float32)

    for name, rows in (("word", VOCAB), ("position", POSITIONS), ("token_type", 2)):
        matrix(f"embeddings.{name}_embeddings", rows, HIDDEN)
    norm("embeddings.LayerNorm")
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            linear(f"{at}.attention.self.{part}", HIDDEN, HIDDEN)
        linear(f"{at}.attention.output.dense", HIDDEN, HIDDEN)
        norm(f"{at}.attention.output.LayerNorm")
        linear(f"{at}.intermediate.dense", HIDDEN, INNER)
        linear(f"{at}.output.dense", INNER, HIDDEN)
        norm(f"{at}.output.LayerNorm")
    linear("pooler.dense", HIDDEN, HIDDEN)
    return found


def _write_tokenizer(path: Path, words: list[str]) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    known = [*SPECIAL, *dict.fromkeys(words)]
    known += [f"[unused{index}]" for index in range(VOCAB - len(known))]
    ids = {word: index for index, word in enumerate(known)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, ids[name]) for name in ("[CLS]", "[SEP]")],
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(path / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": POSITIONS,
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    (path / "tokenizer_config.json").write_text(json.dumps(settings) + "\n", encoding="utf-8")
