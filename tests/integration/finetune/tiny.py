"""A tiny random Llama with a real tokenizer, and runs of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from configs import parse
from finetune.config import FinetuneConfig
from tests.unit.finetune.models import CHATML, trained

_ANSWERS = ("Paris", "Yes, it is.", "The capital of France is Paris, and it has been for long.")


def tiny_llama(folder: Path) -> Path:
    """Two layers of four heads, two for keys; random weights, always the same."""
    folder.mkdir(parents=True)
    tokenizer = Tokenizer.from_str(trained())
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "<|im_end|>", "chat_template": CHATML}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def conversations(path: Path, count: int = 24) -> Path:
    """Rows of several lengths."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What is {'the capital of ' * (i % 4)}France {i}?"},
                {"role": "assistant", "content": f"{_ANSWERS[i % 3]} {i}"},
            ]
        }
        for i in range(count)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def preferences(path: Path, count: int = 16) -> Path:
    """Pairs that prefer one way of answering."""
    rows = [
        {
            "prompt": [{"role": "user", "content": f"What is {i}?"}],
            "chosen": [{"role": "assistant", "content": f"Yes {i}"}],
            "rejected": [{"role": "assistant", "content": f"The capital {i}"}],
        }
        for i in range(count)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def config(model: Path, data: Path, *overrides: str, **train: Any) -> FinetuneConfig:
    """A run of a few steps."""
    settings = {"batch_size": 4, "packing": False, "learning_rate": 0.01, "max_steps": 6} | train
    return parse(
        FinetuneConfig,
        {
            "model": str(model),
            "precision": "fp32",
            "data": {
                "train": [{"kind": "file", "path": str(data)}],
                "validation_fraction": 0.2,
                "max_length": 128,
            },
            "lora": {"rank": 4, "alpha": 8},
            "train": settings,
            "tracking": {"enabled": False},
            "evaluation": {"enabled": False},
        },
        overrides,
    )
