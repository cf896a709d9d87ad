"""The base model in the precision of the run, with a fresh adapter on it."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, set_seed

from finetune.config import FinetuneConfig, LoraConfig, QuantisationConfig
from finetune.errors import ModelUnavailable
from finetune.train.attention import attention_for, register
from finetune.train.projection import join_adapters

_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_SEEDS = 2**32


@dataclass(frozen=True)
class Place:
    """Where and in what the run computes."""

    device: torch.device
    precision: str
    """bf16, fp32 or nf4."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the arithmetic, where weights are not in 4 bits."""
        return _DTYPES.get(self.precision, torch.bfloat16)


def load_model(config: FinetuneConfig, folder: Path, place: Place) -> PeftModel:
    """The base model of `folder`, frozen, and an adapter whose first weights the seed decides.

    Raises ModelUnavailable.
    """
    base = load_base(folder, place, config.quantisation)
    _require_modules(base, config.lora)
    set_seed(config.seed % _SEEDS)
    with warnings.catch_warnings():
        # PEFT warns of base models that it cannot look up on the Hub.
        warnings.simplefilter("ignore")
        model = get_peft_model(base, peft_config(config, folder))
    assert isinstance(model, PeftModel)
    if config.train.gradient_checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    join_adapters(model)
    return model


def load_base(folder: Path, place: Place, quantisation: QuantisationConfig | None = None) -> Any:
    """The model alone. Raises ModelUnavailable."""
    register()
    dtype, extra = place.dtype, {}
    if place.precision == "nf4":
        quantisation = quantisation or QuantisationConfig()
        dtype = _DTYPES[quantisation.compute_dtype]
        extra["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=quantisation.double,
            bnb_4bit_compute_dtype=dtype,
        )
    try:
        settings = AutoConfig.from_pretrained(folder, local_files_only=True)
        base = AutoModelForCausalLM.from_pretrained(
            folder,
            config=settings,
            dtype=dtype,
            attn_implementation=attention_for(settings),
            device_map={"": place.device},
            local_files_only=True,
            use_safetensors=True,
            **extra,
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as exc:
        raise ModelUnavailable(
            f"the base model in {folder} cannot be loaded: {exc}. It must be a causal language "
            "model that transformers knows, with its weights as safetensors"
        ) from exc
    base.config.use_cache = False
    return base.requires_grad_(False)


def peft_config(config: FinetuneConfig, folder: Path) -> PeftLoraConfig:
    """What is written beside the adapter's weights."""
    lora = config.lora
    return PeftLoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha if lora.alpha % 1 else int(lora.alpha),
        lora_dropout=lora.dropout,
        target_modules=list(_LINEAR if lora.target_modules == "all-linear" else targets(lora)),
        use_rslora=lora.rslora,
        base_model_name_or_path=base_name(config, folder),
    )


def targets(lora: LoraConfig) -> tuple[str, ...]:
    """Last components of the adapted modules' names."""
    return _LINEAR if lora.target_modules == "all-linear" else tuple(lora.target_modules)


def base_name(config: FinetuneConfig, folder: Path) -> str:
    """The base model as the server knows it."""
    is_name = not re.search(r"[/\\]", config.model) and config.model not in (".", "..")
    return config.serve.base or (config.model if is_name else str(folder.absolute()))


def _require_modules(base: nn.Module, lora: LoraConfig) -> None:
    linear = {
        name.rpartition(".")[2]
        for name, module in base.named_modules()
        if isinstance(module, nn.Linear)
    } - {"lm_head"}
    if unknown := sorted(set(targets(lora)) - linear):
        raise ModelUnavailable(
            f"lora.target_modules: {', '.join(unknown)}: the model has no such linear module; it "
            f"has {', '.join(sorted(linear))}"
        )
