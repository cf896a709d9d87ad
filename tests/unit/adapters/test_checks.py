"""Adapters as honest people make them: what is served, and what is refused with which mend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.adapters import BaseModel, Limits, check
from serving.errors import AdapterRefused
from tests.adapter_files import (
    CONFIG,
    LINEAR,
    WEIGHTS,
    Tensors,
    adapter_tensors,
    safetensors_bytes,
    shape_of,
    write_adapter,
)

TINY = BaseModel("tiny", frozenset({"org/tiny"}), shape=shape_of())
LIMITS = Limits(max_rank=8)
KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
EMBED = "base_model.model.model.embed_tokens"
HEAD = "base_model.model.lm_head"


def zeros(*size: int) -> Any:
    return np.zeros(size, dtype=np.float32)


def embedding_tensors() -> Tensors:
    return {
        f"{EMBED}.lora_embedding_A": zeros(4, 48),
        f"{EMBED}.lora_embedding_B": zeros(16, 4),
        f"{EMBED}.base_layer.weight": zeros(48, 16),
        f"{HEAD}.lora_A.weight": zeros(4, 16),
        f"{HEAD}.lora_B.weight": zeros(48, 4),
        f"{HEAD}.base_layer.weight": zeros(48, 16),
    }


def refusal(path: Path, base: BaseModel = TINY) -> str:
    with pytest.raises(AdapterRefused) as refused:
        check(path, base, LIMITS)
    return str(refused.value)


def test_a_sound_adapter_passes_with_its_facts(tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "a", rank=8, modules=LINEAR)
    checked = check(path, TINY, LIMITS, inside=tmp_path)
    assert checked.path == path
    assert checked.base_name == "tiny"
    assert checked.rank == 8
    assert checked.target_modules == tuple(sorted(LINEAR))
    assert checked.pairs == 2 * len(LINEAR)
    assert checked.size_bytes == (path / WEIGHTS).stat().st_size


@pytest.mark.parametrize(
    "targets",
    [
        "all-linear",
        r".*\.(q_proj|v_proj)",
        r"model\.layers\.\d+\.self_attn\.(?:q|v)_proj",
        r"(?:.*?(?:language|text).*?(?:attn|mlp).*?)|(?:\bmodel\.layers\.[\d]{1,}\..*)",
        ["q_proj", "self_attn.v_proj"],
        [f"model.layers.{i}.self_attn.{m}_proj" for i in (0, 1) for m in "qv"],
        ["q_proj", "v_proj", "down_proj"],
    ],
)
def test_target_modules_as_peft_writes_them(tmp_path: Path, targets: str | list[str]) -> None:
    path = write_adapter(tmp_path / "a", config={"target_modules": targets})
    assert check(path, TINY, LIMITS).target_modules == ("q_proj", "v_proj")


@pytest.mark.parametrize(
    "setting",
    [
        {"use_rslora": True},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": False},
        {"alpha_pattern": {"q_proj": 3.5}},
        {"layers_to_transform": [0, 1]},
        {"bias": "none", "lora_alpha": 0.5},
        {"base_model_name_or_path": "org/tiny"},
    ],
)
def test_harmless_settings_are_served(tmp_path: Path, setting: dict[str, Any]) -> None:
    assert check(write_adapter(tmp_path / "a", config=setting), TINY, LIMITS).pairs == 4


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; only \"LORA\""),
        ({"peft_type": None}, "peft_type is None"),
        ({"use_dora": True}, "vLLM does not serve DoRA; train without it"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is ['lm_head']"),
        ({"lora_bias": True}, "lora_bias is True"),
        ({"bias": "all"}, "bias is 'all'; vLLM serves no trained bias; train with bias=\"none\""),
        ({"use_qalora": True}, "use_qalora"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"init_lora_weights": "pissa"}, "path_initial_model_for_weight_conversion"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path is None; set it"),
        ({"base_model_name_or_path": "other"}, "'other', which is none of tiny, org/tiny"),
        ({"r": 0}, "r is 0; a rank is a whole number above 0"),
        ({"r": -4}, "r is -4"),
        ({"r": 4.0}, "r is 4.0"),
        ({"r": True}, "r is True"),
        ({"r": None}, "r is None"),
        ({"r": 16}, "the engine takes ranks up to 8; raise engine.lora.max_rank"),
        ({"rank_pattern": {"q_proj": 16}}, "rank_pattern['q_proj'] is 16"),
        ({"rank_pattern": {"q_proj": 0}}, "rank_pattern['q_proj'] is 0"),
        ({"rank_pattern": {"(a+)+": 4}}, "name the modules without wildcards"),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern is ['q_proj']"),
        ({"alpha_pattern": {"q_proj": "8"}}, "alpha_pattern['q_proj'] is '8'"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"lora_alpha": "16"}, "lora_alpha is '16'"),
        ({"target_modules": None}, "target_modules is None"),
        ({"target_modules": []}, "target_modules is []"),
        ({"target_modules": ["q_proj", 3]}, "target_modules"),
        ({"target_modules": ["c_attn"]}, "choose from down_proj, embed_tokens, gate_proj"),
        ({"target_modules": ["q_proj"]}, "target_modules of adapter_config.json leaves out"),
        ({"target_modules": r".*\.q_proj"}, "target_modules of adapter_config.json leaves out"),
    ],
)
def test_a_setting_that_would_not_be_served_is_refused(
    tmp_path: Path, setting: dict[str, Any], said: str
) -> None:
    assert said in refusal(write_adapter(tmp_path / "a", config=setting))


def test_a_rank_pattern_gives_single_modules_their_own_rank(tmp_path: Path) -> None:
    tensors = adapter_tensors(shape_of(), 4, ["q_proj"])
    tensors |= adapter_tensors(shape_of(), 2, ["v_proj"])
    patterns = [{"v_proj": 2}, {r".*\.v_proj": 2}, {"self_attn.v_proj": 2, r".*_proj": 4}]
    for number, pattern in enumerate(patterns):
        config = {"rank_pattern": pattern}
        path = write_adapter(tmp_path / str(number), tensors=tensors, config=config)
        assert check(path, TINY, LIMITS).rank == 4
    assert "gives it rank 4" in refusal(write_adapter(tmp_path / "plain", tensors=tensors))


def without(key: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {k: v for k, v in tensors.items() if k != key}


def renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {k.replace(old, new): v for k, v in tensors.items()}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without(KEY), "'model.layers.0.self_attn.q_proj' has no lora_A"),
        (without(KEY.replace("_A", "_B")), "has no lora_B"),
        (lambda tensors: {}, "holds no LoRA tensor"),
        (renamed("base_model.model.model", "model"), "is no LoRA tensor as PEFT names them"),
        (renamed("base_model.model.model", "base_model.model"), "no such module"),
        (renamed("lora_A", "lora_C"), "is no LoRA tensor"),
        (renamed("lora_A.weight", "lora_A.default.weight"), "is no LoRA tensor"),
        (renamed("self_attn", "attention"), "does not fit tiny"),
        (renamed("layers.1", "layers.2"), "the model has 2 layers"),
        (renamed("layers.1", "layers.٢"), "is no LoRA tensor"),
        (renamed("q_proj", "o_proj"), "leaves out"),
        (lambda t: t | {KEY: zeros(2, 16)}, "gives it rank 4"),
        (lambda t: t | {KEY: zeros(4, 17)}, "the base model needs [4, 16]"),
        (lambda t: t | {KEY: zeros(16, 4)}, "gives it rank 4"),
        (lambda t: t | {KEY: zeros(4, 16, 1)}, "has shape [4, 16, 1]"),
        (lambda t: t | {KEY: zeros(4, 0)}, "has shape [4, 0]"),
        (lambda t: t | {"base_model.model.score.weight": zeros(2, 16)}, "is no LoRA tensor"),
        (lambda t: t | {f"{EMBED}.weight": zeros(48, 16)}, "is no LoRA tensor"),
        (
            lambda t: t | {KEY.replace("lora_A", "base_layer"): zeros(32, 16)},
            "holds weights of the base model",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    tmp_path: Path, change: Callable[[Tensors], Tensors], said: str
) -> None:
    tensors = change(adapter_tensors(shape_of()))
    assert said in refusal(write_adapter(tmp_path / "a", tensors=tensors))


def test_an_adapter_trained_on_a_larger_model_is_refused(tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "a", shape=shape_of(hidden_size=32))
    assert "has shape [4, 32], and the base model needs [4, 16]" in refusal(path)


def test_embeddings_are_served_where_vllm_adapts_them(tmp_path: Path) -> None:
    config = {"target_modules": ["embed_tokens", "lm_head"]}
    path = write_adapter(tmp_path / "a", tensors=embedding_tensors(), config=config)
    assert check(path, TINY, LIMITS).target_modules == ("embed_tokens", "lm_head")
    mistral = BaseModel("tiny", shape=shape_of(architectures=["MistralForCausalLM"]))
    assert "no adapter on the embeddings of this model family" in refusal(path, mistral)


@pytest.mark.parametrize(
    ("key", "tensor", "said"),
    [
        (f"{EMBED}.base_layer.weight", zeros(50, 16), "the vocabulary was resized"),
        (f"{EMBED}.lora_embedding_A", zeros(4, 50), "the base model needs [4, 48]"),
        (f"{EMBED}.lora_A.weight", zeros(4, 48), "another kind of module"),
        (f"{HEAD}.lora_embedding_A", zeros(4, 16), "another kind of module"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused(
    tmp_path: Path, key: str, tensor: Any, said: str
) -> None:
    config = {"target_modules": ["embed_tokens", "lm_head"]}
    tensors = embedding_tensors() | {key: tensor}
    assert said in refusal(write_adapter(tmp_path / "a", tensors=tensors, config=config))


def test_without_the_models_dimensions_the_adapter_must_still_agree_with_itself(
    tmp_path: Path,
) -> None:
    unknown = BaseModel("tiny")
    other = shape_of(hidden_size=64, num_hidden_layers=40)
    path = write_adapter(tmp_path / "a", shape=other, config={"target_modules": "all-linear"})
    assert check(path, unknown, LIMITS).pairs == 80
    tensors = adapter_tensors(shape_of(), rank=2)
    wrong = write_adapter(tmp_path / "b", tensors=tensors)
    assert "gives it rank 4" in refusal(wrong, unknown)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_half_precision_is_served(tmp_path: Path, dtype: str) -> None:
    path = write_adapter(tmp_path / "a", modules=["q_proj"])
    header: dict[str, Any] = {}
    for key, tensor in adapter_tensors(shape_of(), modules=["q_proj"]).items():
        start = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        offsets = [start, start + 2 * tensor.size]
        header[key] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": offsets}
    data = b"\0" * max(entry["data_offsets"][1] for entry in header.values())
    (path / WEIGHTS).write_bytes(safetensors_bytes(header | {"__metadata__": {"a": "b"}}, data))
    assert check(path, TINY, LIMITS).pairs == 2


def test_missing_files_are_named(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "none")
    path = write_adapter(tmp_path / "a")
    (path / WEIGHTS).rename(path / "moved")
    assert f"{WEIGHTS} is missing; only safetensors" in refusal(path)
    (path / CONFIG).unlink()
    assert f"{CONFIG} is missing; point at a directory" in refusal(path)
    assert "is not a directory" in refusal(path / "moved")
