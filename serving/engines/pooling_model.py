"""What the two engines on sentence-transformers share: loading, padding, the size of a pass.

`torch` and `sentence_transformers` are imported when a function is called, never
with this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.config import EmbeddingConfig, RerankConfig
from serving.engines.base import EngineSpec
from serving.engines.pooling_tokens import Tokens
from serving.errors import StartError

if TYPE_CHECKING:
    import torch

__all__ = [
    "CPU_PASS_TOKENS",
    "Collator",
    "fast_tokenizer",
    "load_dtype",
    "pass_cost",
    "pass_tokens",
    "prepare_torch",
    "refuse_unless_text",
    "token_limit",
    "weights_of",
]

CPU_PASS_TOKENS = 1024
"""Longer passes on a CPU are hardly faster per token (2 cores, MiniLM-L6, float32: 0.119 ms at
544 tokens, 0.105 at 1088, 0.101 at 2176), and everybody who arrives meanwhile waits for them."""


class Collator:
    """Pads token sequences to one tensor, the way the model's tokenizer would."""

    def __init__(self, tokenizer: Any, device: str) -> None:
        self._pad = tokenizer.pad_token_id or 0
        self._pad_type = getattr(tokenizer, "pad_token_type_id", 0)
        self._left = tokenizer.padding_side == "left"
        self._typed = "token_type_ids" in tokenizer.model_input_names
        self._device = device

    def __call__(self, batch: Sequence[Tokens]) -> dict[str, torch.Tensor]:
        """Tensors (batch, longest) int64: input_ids, attention_mask, token_type_ids if used."""
        features = {
            "input_ids": self._tensor([one.ids for one in batch], self._pad),
            "attention_mask": self._tensor([[1] * len(one.ids) for one in batch], 0),
        }
        if self._typed:
            features["token_type_ids"] = self._tensor(
                [one.type_ids for one in batch], self._pad_type
            )
        return features

    def written(self, length: int) -> slice:
        """Where the tokens of a row are that holds `length` of them."""
        return slice(-length, None) if self._left else slice(0, length)

    def _tensor(self, rows: list[list[int]], fill: int) -> torch.Tensor:
        import torch

        longest = max(map(len, rows))
        if self._left:
            padded = [[fill] * (longest - len(row)) + row for row in rows]
        else:
            padded = [row + [fill] * (longest - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.long).to(self._device)


def pass_tokens(config: EmbeddingConfig | RerankConfig, device: str) -> int:
    """Padded tokens in one pass: `max_batch_tokens`, on a CPU at most CPU_PASS_TOKENS."""
    limit = config.max_batch_tokens
    return min(limit, CPU_PASS_TOKENS) if device == "cpu" else limit


def pass_cost(device: str) -> int:
    """Fixed cost of a pass in tokens. On a CPU one text of 17 tokens takes 6.2 ms, more cost
    0.1 ms a token. A GPU has room for thousands before a pass takes longer (not measured)."""
    return 64 if device == "cpu" else 4096


def prepare_torch(config: EmbeddingConfig | RerankConfig) -> str:
    """Set the threads; returns the device to load to."""
    import torch

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if config.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return config.device


def load_dtype(config: EmbeddingConfig | RerankConfig, device: str) -> Any:
    """`auto` is the checkpoint's own on a GPU, and float32 on a CPU."""
    import torch

    if config.dtype != "auto":
        return getattr(torch, config.dtype)
    return torch.float32 if device == "cpu" else "auto"


def weights_of(spec: EngineSpec) -> Path:
    """The model's directory. Raises StartError when there is none."""
    if spec.weights is None or not spec.weights.is_dir():
        raise StartError(
            f"{spec.model} has no weights at {spec.weights}",
            "Set `source` of the model to a built-in name, a directory or a Hub id.",
        )
    return spec.weights


def refuse_unless_text(model: Any, name: str) -> None:
    """Raises StartError unless the pipeline begins with a transformer that reads plain text."""
    from sentence_transformers.base.modules import Transformer

    first = model[0]
    formats = first.modality_config if isinstance(first, Transformer) else {}
    plain = formats.get("text", {}).get("method") == "forward" and "message" not in formats
    if not plain:
        raise StartError(
            f"{name} is not a model that reads plain text through one transformer",
            "Serve it with vLLM: engine {kind: vllm, task: pooling}.",
        )


def fast_tokenizer(tokenizer: Any, name: str) -> Any:
    """The `tokenizers.Tokenizer` behind a transformers tokenizer. Raises StartError."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        raise StartError(
            f"{name} has no fast tokenizer",
            "Add a tokenizer.json to the model: AutoTokenizer.from_pretrained(...) writes one.",
        )
    return fast


def token_limit(model: Any) -> int:
    """Tokens in one input, special ones included: the model's own `max_seq_length`."""
    positions = getattr(model.config, "max_position_embeddings", None)
    known = [limit for limit in (model.max_seq_length, positions) if limit]
    return int(min(known)) if known else 512
