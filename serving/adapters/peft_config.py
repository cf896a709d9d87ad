"""Reads `adapter_config.json` and refuses what vLLM would not serve as it was trained.

The rules follow `PEFTHelper` in vllm/lora/peft_helper.py (0.32); PEFT's features
that it does not know, and would leave out in silence, are refused as well.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from serving.adapters.base_model import EMBEDDINGS, LINEAR, BaseModel
from serving.adapters.files import read_json, show
from serving.adapters.patterns import Ranks, Targets, is_cheap, is_literal
from serving.errors import AdapterRefused

CONFIG = "adapter_config.json"
_MAX_PATTERNS = 2048
_MAX_EXPRESSIONS = 8
# Each changes what the adapter computes; vLLM implements none of them.
_UNSERVED = {
    "use_dora": "DoRA",
    "modules_to_save": "fully trained modules",
    "lora_bias": "a bias on LoRA",
    "use_qalora": "QALoRA",
    "use_bdlora": "block-diagonal LoRA",
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "replicated layers",
    "target_parameters": "LoRA on bare parameters",
    "trainable_token_indices": "retrained tokens",
    "ensure_weight_tying": "tied adapters",
    "arrow_config": "arrow routing",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
}
# These initialisations leave the base model as it is; all others (PiSSA, OLoRA, …) change it.
_PLAIN_INITS = frozenset({"gaussian", "eva", "orthogonal", "mica", "lora_ga"})


@dataclass(frozen=True)
class PeftConfig:
    """Which modules an adapter changes, and by which rank."""

    ranks: Ranks
    targets: Targets


@dataclass(frozen=True)
class Named:
    """A configuration of which only the base model's name has been looked at."""

    name: str
    config: dict[str, Any]


def read_base_name(directory: Path, max_bytes: int) -> Named:
    """Read `adapter_config.json` and the base model it names. Raises AdapterRefused."""
    config = read_json(
        directory / CONFIG, max_bytes, "point at a directory written by PEFT's save_pretrained"
    )
    if config.get("peft_type") != "LORA":
        _refuse("peft_type", config.get("peft_type"), 'only "LORA" adapters are served')
    base_name = config.get("base_model_name_or_path")
    if not isinstance(base_name, str) or not base_name:
        _refuse(
            "base_model_name_or_path", base_name, "set it to the model the adapter was trained on"
        )
    return Named(base_name, config)


def parse_config(config: dict[str, Any], base: BaseModel, max_rank: int) -> PeftConfig:
    """Check every setting of a configuration against `base`. Raises AdapterRefused."""
    for key, feature in _UNSERVED.items():
        if config.get(key):
            _refuse(key, config[key], f"vLLM does not serve {feature}; train without it")
    if config.get("bias", "none") != "none":
        _refuse("bias", config["bias"], 'vLLM serves no trained bias; train with bias="none"')
    init = config.get("init_lora_weights", True)
    if not isinstance(init, bool) and str(init).lower() not in _PLAIN_INITS:
        _refuse(
            "init_lora_weights",
            init,
            "it changed the base model's weights; save the adapter with "
            "path_initial_model_for_weight_conversion",
        )
    if not _is_number(config.get("lora_alpha")):
        _refuse("lora_alpha", config.get("lora_alpha"), "set it to a number")
    for key, value in _pattern(config, "alpha_pattern").items():
        if not _is_number(value):
            _refuse(f"alpha_pattern[{show(key)}]", value, "set it to a number")
    return PeftConfig(_ranks(config, max_rank), _targets(config, base))


def _ranks(config: dict[str, Any], max_rank: int) -> Ranks:
    patterns = _pattern(config, "rank_pattern")
    settings = {"r": config.get("r")}
    settings |= {f"rank_pattern[{show(key)}]": rank for key, rank in patterns.items()}
    for setting, rank in settings.items():
        if type(rank) is not int or rank <= 0:
            _refuse(setting, rank, "a rank is a whole number above 0")
        if rank > max_rank:
            _refuse(
                setting,
                rank,
                f"the engine takes ranks up to {max_rank}; raise engine.lora.max_rank or train "
                "with a smaller rank",
            )
    return Ranks.build(config["r"], patterns)


def _pattern(config: dict[str, Any], name: str) -> dict[str, Any]:
    """`rank_pattern` or `alpha_pattern`, whose keys vLLM tries on every module."""
    patterns = config.get(name) or {}
    if not isinstance(patterns, dict) or len(patterns) > _MAX_PATTERNS:
        _refuse(name, patterns, f"it must map at most {_MAX_PATTERNS} module names")
    expressions = [key for key in patterns if not is_literal(key)]
    for key in expressions:
        if len(expressions) > _MAX_EXPRESSIONS or not is_cheap(key) or not _compiles(key):
            _refuse(f"{name}[{show(key)}]", patterns[key], "name the modules without wildcards")
    return patterns


def _targets(config: dict[str, Any], base: BaseModel) -> Targets:
    """`target_modules`, every name of which must be a module that takes an adapter."""
    wanted = config.get("target_modules")
    if isinstance(wanted, str):
        if wanted.lower() == "all-linear":
            return Targets(LINEAR, every=base.shape is None)
        if is_cheap(wanted) and _compiles(wanted):
            return Targets(frozenset(), re.compile(wanted))
        return Targets(frozenset(), every=True)
    if not isinstance(wanted, list) or not wanted or not all(isinstance(w, str) for w in wanted):
        _refuse("target_modules", wanted, "list the names of the adapted modules")
    if base.shape is not None:
        for name in wanted:
            _check_known(name, base.shape.modules)
    return Targets(frozenset(wanted))


def _check_known(name: str, modules: frozenset[str]) -> None:
    last = name.rpartition(".")[2]
    if last in modules:
        return
    why = (
        "vLLM puts no adapter on the embeddings of this model family"
        if last in EMBEDDINGS
        else "this model has no such module, or vLLM puts no adapter on it"
    )
    _refuse("target_modules", name, f"{why}; choose from {', '.join(sorted(modules))}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def _refuse(setting: str, value: object, mend: str) -> NoReturn:
    raise AdapterRefused(f"{CONFIG}: {setting} is {show(value)}; {mend}")
