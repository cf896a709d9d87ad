"""What a card could reach at best, from a model's dimensions and the card's two ceilings.

`t_step = max((W + B*S*k) / BW, B*(F + a*S) / C)` and `tokens/s = B / t_step`: a decoding
step reads the weights once and every sequence's KV cache, or is held up by arithmetic.
Batch B, context S in tokens, bandwidth BW in bytes/s, rate C in FLOP/s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Card", "Shape", "decode_tokens_s", "lora_kept", "request_tokens_s", "training_tokens_s"]


@dataclass(frozen=True)
class Card:
    """The ceilings of one accelerator."""

    bytes_s: float
    """Copy bandwidth, bytes read and bytes written both counted."""
    flop_s: float
    """Rate of large bf16 matrix products on random data."""
    measured: bool
    """False: the constants of the configuration, not this card's own."""


@dataclass(frozen=True)
class Shape:
    """Dimensions of a Llama-like model."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> Shape:
        """From the fields of a `config.json` (transformers' LlamaConfig)."""
        heads = config["num_attention_heads"]
        return Shape(
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            vocab=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", False)),
        )

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of the linear layers of one block, by their usual names."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "self_attn.q_proj": (self.hidden, query),
            "self_attn.k_proj": (self.hidden, key),
            "self_attn.v_proj": (self.hidden, key),
            "self_attn.o_proj": (query, self.hidden),
            "mlp.gate_proj": (self.hidden, self.intermediate),
            "mlp.up_proj": (self.hidden, self.intermediate),
            "mlp.down_proj": (self.intermediate, self.hidden),
        }

    @property
    def step_parameters(self) -> int:
        """Weights that every step reads: all but the input embedding."""
        block = sum(inputs * outputs for inputs, outputs in self.linear.values())
        return self.layers * block + self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """All weights but those of the norms."""
        return self.step_parameters + (0 if self.tied else self.vocab * self.hidden)

    @property
    def flop_per_token(self) -> float:
        """F: two for each weight."""
        return 2.0 * self.step_parameters

    @property
    def attention_flop(self) -> float:
        """a: of one token for each token of context."""
        return 4.0 * self.layers * self.heads * self.head_dim

    def weight_bytes(self, of_one: float = 2.0) -> float:
        """W, for weights of `of_one` bytes."""
        return self.step_parameters * of_one

    def kv_bytes(self, of_one: float = 2.0) -> float:
        """k: KV cache of one token, for values of `of_one` bytes."""
        return 2.0 * self.layers * self.kv_heads * self.head_dim * of_one

    def lora_bytes(self, rank: int, of_one: float = 2.0) -> float:
        """A: one adapter on all linear layers."""
        sizes = sum(inputs + outputs for inputs, outputs in self.linear.values())
        return self.layers * rank * sizes * of_one


def step_s(
    shape: Shape, card: Card, batch: int, context: float, weight: float = 2.0, kv: float = 2.0
) -> float:
    """Least time of one decoding step, in seconds; `weight` and `kv` are bytes a value."""
    memory = (shape.weight_bytes(weight) + batch * context * shape.kv_bytes(kv)) / card.bytes_s
    flop = batch * (shape.flop_per_token + shape.attention_flop * context)
    return max(memory, flop / card.flop_s)


def decode_tokens_s(shape: Shape, card: Card, batch: int, context: float) -> float:
    """Output tokens a second at best, decoding alone."""
    return batch / step_s(shape, card, batch, context)


def prefill_s(shape: Shape, card: Card, tokens: int) -> float:
    """Least time to process a prompt: the floor of TTFT."""
    flop = tokens * (shape.flop_per_token + shape.attention_flop * tokens / 2)
    return max(flop / card.flop_s, shape.weight_bytes() / card.bytes_s)


def request_tokens_s(
    shape: Shape, card: Card, batch: int, inputs: int, outputs: int, *, weight: float = 2.0,
    kv: float = 2.0,
) -> float:  # fmt: skip
    """Output tokens a second at best of a closed loop of `batch` requests, prefill included.

    The context is the mean over an answer. Prefill and decoding are taken one after the
    other; a scheduler that overlaps them perfectly could pass this limit a little.
    """
    decoding = step_s(shape, card, batch, inputs + outputs / 2, weight, kv) / batch
    flop = inputs * (shape.flop_per_token + shape.attention_flop * inputs / 2)
    return 1.0 / (decoding + flop / card.flop_s / outputs)


def lora_kept(shape: Shape, card: Card, step: float, distinct: float, rank: int) -> float:
    """Share of the throughput left when a step of `step` seconds also reads the adapters."""
    return step / (step + distinct * shape.lora_bytes(rank) / card.bytes_s)


def training_tokens_s(shape: Shape, card: Card, *, recompute: bool) -> float:
    """Tokens a second of LoRA training at best: 4N FLOP a token, 6N with full recomputation.

    Frozen weights have a forward pass and the gradient of their input, no gradient of
    their own; N counts all parameters.
    """
    return card.flop_s / ((6.0 if recompute else 4.0) * shape.parameters)
