"""Base models' folders without weights, and tokenised data of given lengths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from finetune.config import FinetuneConfig
from finetune.data.tokenise import Tokenised, TokenisedPart
from finetune.data.tokenizer import Encoded

SMOLLM: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 576, "intermediate_size": 1536,
    "num_attention_heads": 9, "num_key_value_heads": 3, "num_hidden_layers": 30,
    "vocab_size": 49152, "tie_word_embeddings": True, "max_position_embeddings": 8192,
}  # fmt: skip
LLAMA_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336,
    "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 32,
    "vocab_size": 128256, "tie_word_embeddings": False, "max_position_embeddings": 131072,
}  # fmt: skip


def write_model(folder: Path, config: dict[str, Any], **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def tokens_of(lengths: list[int], held_out: list[int] | None = None) -> Tokenised:
    """Examples of so many tokens, the second half of each learnt."""
    parts = []
    for each in (lengths, held_out or []):
        part = TokenisedPart()
        for index, length in enumerate(each):
            learnt = [at >= length // 2 for at in range(length)]
            part.append(f"{index}".encode(), Encoded([1] * length, learnt))
        parts.append(part)
    return Tokenised(parts[0], parts[1], [])


def config_of(**values: Any) -> FinetuneConfig:
    return FinetuneConfig.model_validate({"model": "m", **values})
