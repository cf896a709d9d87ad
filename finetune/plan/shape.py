"""A base model's dimensions, read from its `config.json`. Loads no weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import ModelUnavailable

# Families with Llama's module names, which the server checks and loads adapters of; and whether
# they have biases on queries, keys and values where the config does not say.
FAMILIES: Mapping[str, bool] = {
    "LlamaForCausalLM": False,
    "MistralForCausalLM": False,
    "Qwen2ForCausalLM": True,
    "Qwen3ForCausalLM": False,
}
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
LINEAR = (*ATTENTION, *MLP)


@dataclass(frozen=True)
class BaseShape:
    """A decoder with Llama's modules."""

    family: str
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    layers: int
    vocab: int
    tied: bool
    """Whether the output head is the embedding."""
    max_positions: int | None
    """Longest sequence that it was made for."""
    biased: bool = False
    """Whether queries, keys and values have biases."""
    normed_heads: bool = False
    """Whether queries and keys are normalised (Qwen3)."""

    @property
    def queries(self) -> int:
        """Features of all heads' queries."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Features of all heads' keys."""
        return self.kv_heads * self.head_dim

    def features(self, module: str) -> tuple[int, int]:
        """Features into and out of a linear module of a layer."""
        hidden = self.hidden
        match module:
            case "q_proj":
                return hidden, self.queries
            case "k_proj" | "v_proj":
                return hidden, self.keys
            case "o_proj":
                return self.queries, hidden
            case "gate_proj" | "up_proj":
                return hidden, self.intermediate
            case "down_proj":
                return self.intermediate, hidden
            case _:
                raise LookupError(f"the base model has no linear module {module!r} in its layers")

    @property
    def linear_parameters(self) -> int:
        """Weights of the layers' linear modules, which `nf4` quantises."""
        each = (self.features(module) for module in LINEAR)
        return self.layers * sum(inputs * outputs for inputs, outputs in each)

    @property
    def other_parameters(self) -> int:
        """Embeddings, output head, norms and biases, which stay in the compute dtype."""
        norms = 2 * self.hidden + (2 * self.head_dim if self.normed_heads else 0)
        biases = self.queries + 2 * self.keys if self.biased else 0
        tables = self.vocab * self.hidden * (1 if self.tied else 2)
        return tables + self.layers * (norms + biases) + self.hidden

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.linear_parameters + self.other_parameters

    @property
    def largest_linear(self) -> int:
        """Weights of the largest linear module of a layer."""
        return max(inputs * outputs for inputs, outputs in map(self.features, LINEAR))

    def adapter_parameters(self, rank: int, modules: tuple[str, ...]) -> int:
        """Weights of a LoRA adapter. Raises LookupError for a module that is not there."""
        return self.layers * sum(rank * sum(self.features(module)) for module in modules)


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a model's folder. Raises ModelUnavailable."""
    path = folder / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ModelUnavailable(
            f"{path} cannot be read ({exc}): the base model must be a folder of transformers"
        ) from exc
    if not isinstance(found, dict):
        raise ModelUnavailable(f"{path} does not hold an object")
    return found


def read_shape(folder: Path) -> BaseShape:
    """The shape of the model in `folder`.

    Raises ModelUnavailable for another family than FAMILIES, which the server could not check
    adapters of, and for a config that lacks a dimension.
    """
    config = read_config(folder)
    family = next(iter(config.get("architectures") or ()), None)
    if family not in FAMILIES:
        raise ModelUnavailable(
            f"{folder} is a {family or 'model without an architecture'}; adapters are trained and "
            f"served for {', '.join(FAMILIES)}: choose a base model of these"
        )
    try:
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        return BaseShape(
            family=str(family),
            hidden=hidden,
            intermediate=int(config["intermediate_size"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            layers=int(config["num_hidden_layers"]),
            vocab=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", False)),
            max_positions=config.get("max_position_embeddings"),
            biased=bool(config.get("attention_bias", FAMILIES[str(family)])),
            normed_heads=family == "Qwen3ForCausalLM",
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as exc:
        raise ModelUnavailable(
            f"{folder / 'config.json'} lacks a dimension, or it is no number: {exc}"
        ) from exc
