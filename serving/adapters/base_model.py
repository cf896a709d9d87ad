"""The facts of a base model that an adapter must fit: its names and its dimensions."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Architectures with Llama's module names, and whether vLLM puts LoRA on their embeddings:
# `embedding_modules` of the classes in vllm/model_executor/models/{llama,mistral,qwen2,qwen3}.py.
_FAMILIES = {
    "LlamaForCausalLM": True,
    "MistralForCausalLM": False,
    "Qwen2ForCausalLM": False,
    "Qwen3ForCausalLM": True,
}
_BY_MODEL_TYPE = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
EMBEDDINGS = frozenset({"embed_tokens", "lm_head"})
_ATTENTION = frozenset({"q_proj", "k_proj", "v_proj", "o_proj"})
_MLP = frozenset({"gate_proj", "up_proj", "down_proj"})
LINEAR = _ATTENTION | _MLP
_LAYER = re.compile(r"model\.layers\.(0|[1-9][0-9]{0,5})\.(self_attn|mlp)\.([a-z_]+)")


@dataclass(frozen=True)
class Dims:
    """Features into and out of one module. LoRA: A is `(rank, inputs)`, B `(outputs, rank)`."""

    inputs: int
    outputs: int


@dataclass(frozen=True)
class ModelShape:
    """Dimensions of a Llama-style model (Llama, Mistral, Qwen2, Qwen3)."""

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    layers: int
    vocab: int
    embedding_lora: bool
    """Whether vLLM puts LoRA on this family's `embed_tokens` and `lm_head`."""

    @property
    def modules(self) -> frozenset[str]:
        """Last components of the module names that can carry an adapter."""
        return LINEAR | EMBEDDINGS if self.embedding_lora else LINEAR

    def dims(self, module: str) -> Dims:
        """Dimensions of a module (`model.layers.0.self_attn.q_proj`).

        Raises LookupError, whose message says what is wrong with the name.
        """
        if module == "model.embed_tokens" and self.embedding_lora:
            return Dims(self.vocab, self.hidden)
        if module == "lm_head" and self.embedding_lora:
            return Dims(self.hidden, self.vocab)
        found = _LAYER.fullmatch(module)
        if found is None:
            raise LookupError("the model has no such module, or vLLM puts no adapter on it")
        if int(found[1]) >= self.layers:
            raise LookupError(f"the model has {self.layers} layers")
        if found[3] not in (_ATTENTION if found[2] == "self_attn" else _MLP):
            raise LookupError(f"{found[2]} has no {found[3]}")
        return self._linear(found[3])

    def _linear(self, name: str) -> Dims:
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        match name:
            case "q_proj":
                return Dims(self.hidden, queries)
            case "k_proj" | "v_proj":
                return Dims(self.hidden, keys)
            case "o_proj":
                return Dims(queries, self.hidden)
            case "down_proj":
                return Dims(self.intermediate, self.hidden)
            case _:
                return Dims(self.hidden, self.intermediate)

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> ModelShape | None:
        """Read a Hugging Face `config.json`; None for a family this module does not know."""
        architectures = config.get("architectures") or [
            _BY_MODEL_TYPE.get(str(config.get("model_type")), "")
        ]
        family = architectures[0] if isinstance(architectures, list) else None
        if family not in _FAMILIES:
            return None
        try:
            hidden, heads = config["hidden_size"], config["num_attention_heads"]
            shape = ModelShape(
                hidden=hidden,
                intermediate=config["intermediate_size"],
                heads=heads,
                kv_heads=config.get("num_key_value_heads") or heads,
                head_dim=config.get("head_dim") or hidden // heads,
                layers=config["num_hidden_layers"],
                vocab=config["vocab_size"],
                embedding_lora=_FAMILIES[family],
            )
        except (KeyError, TypeError, ZeroDivisionError):
            return None
        sizes = (shape.hidden, shape.intermediate, shape.heads, shape.kv_heads, shape.head_dim)
        whole = all(isinstance(size, int) for size in (*sizes, shape.layers, shape.vocab))
        return shape if whole else None


@dataclass(frozen=True)
class BaseModel:
    """A served model as adapters see it."""

    name: str
    """Public name."""
    aliases: frozenset[str] = frozenset()
    """Other names adapters may know it by: its source, its Hub id."""
    weights: Path | None = None
    """Directory of its weights, which adapters trained on this machine may name."""
    shape: ModelShape | None = None
    """None when unknown (the fake engine, another family): then only the adapter's own
    consistency is checked, and the engine has the last word."""

    @staticmethod
    def from_weights(
        name: str, weights: str | Path | None, aliases: Iterable[str] = ()
    ) -> BaseModel:
        """Read `config.json` in `weights`, when there is one."""
        if weights is None:
            return BaseModel(name, frozenset(aliases))
        config: Any = None
        with contextlib.suppress(OSError, ValueError):
            config = json.loads((Path(weights) / "config.json").read_bytes())
        if not isinstance(config, dict):
            return BaseModel(name, frozenset(aliases), Path(weights))
        origin = config.get("_name_or_path")
        known = {*aliases, origin} if isinstance(origin, str) and origin else {*aliases}
        return BaseModel(name, frozenset(known), Path(weights), ModelShape.from_config(config))

    @property
    def known_as(self) -> list[str]:
        """Every name an adapter may give, the public one first."""
        paths = [] if self.weights is None else [str(self.weights)]
        return list(dict.fromkeys([self.name, *sorted(self.aliases), *paths]))

    def accepts(self, base_name: str) -> bool:
        """Whether `base_model_name_or_path` of an adapter means this model."""
        if base_name == self.name or base_name in self.aliases:
            return True
        if self.weights is None or not os.path.isabs(base_name):
            return False
        try:
            return os.path.realpath(base_name) == os.path.realpath(self.weights)
        except (ValueError, OSError):
            return False
