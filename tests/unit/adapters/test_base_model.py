from __future__ import annotations

from pathlib import Path

import pytest

from serving.adapters import BaseModel
from serving.adapters.base_model import Dims
from tests.adapter_files import shape_of, write_base

LAYER = "model.layers.1"


@pytest.mark.parametrize(
    ("module", "dims"),
    [
        (f"{LAYER}.self_attn.q_proj", Dims(16, 32)),
        (f"{LAYER}.self_attn.k_proj", Dims(16, 16)),
        (f"{LAYER}.self_attn.v_proj", Dims(16, 16)),
        (f"{LAYER}.self_attn.o_proj", Dims(32, 16)),
        (f"{LAYER}.mlp.gate_proj", Dims(16, 32)),
        (f"{LAYER}.mlp.up_proj", Dims(16, 32)),
        (f"{LAYER}.mlp.down_proj", Dims(32, 16)),
        ("model.embed_tokens", Dims(48, 16)),
        ("lm_head", Dims(16, 48)),
    ],
)
def test_dimensions_of_each_module(module: str, dims: Dims) -> None:
    assert shape_of().dims(module) == dims


@pytest.mark.parametrize(
    "module",
    [
        "model.layers.2.self_attn.q_proj",
        "model.layers.-1.self_attn.q_proj",
        "model.layers.01.self_attn.q_proj",
        "model.layers.0.mlp.q_proj",
        "model.layers.0.self_attn.down_proj",
        "layers.0.self_attn.q_proj",
        "model.norm",
    ],
)
def test_a_module_the_model_lacks_is_a_lookup_error(module: str) -> None:
    with pytest.raises(LookupError):
        shape_of().dims(module)


def test_the_head_dimension_and_key_heads_follow_from_the_others_when_left_out() -> None:
    shape = shape_of(head_dim=None, num_key_value_heads=None)
    assert (shape.head_dim, shape.kv_heads) == (4, 4)


@pytest.mark.parametrize(
    ("architecture", "adapted"),
    [
        ("LlamaForCausalLM", True),
        ("Qwen3ForCausalLM", True),
        ("Qwen2ForCausalLM", False),
        ("MistralForCausalLM", False),
    ],
)
def test_embeddings_are_adapted_where_vllm_does_it(architecture: str, adapted: bool) -> None:
    shape = shape_of(architectures=[architecture])
    assert ("lm_head" in shape.modules) is adapted


def test_the_model_type_stands_in_for_a_missing_architecture(tmp_path: Path) -> None:
    weights = write_base(tmp_path, architectures=None, model_type="qwen2")
    shape = BaseModel.from_weights("tiny", weights).shape
    assert shape is not None
    assert not shape.embedding_lora


@pytest.mark.parametrize(
    "overrides",
    [
        {"architectures": ["MambaForCausalLM"]},
        {"hidden_size": "16"},
        {"num_attention_heads": 0, "head_dim": None},
        {"vocab_size": None},
    ],
)
def test_an_unknown_family_has_no_shape(tmp_path: Path, overrides: dict[str, object]) -> None:
    assert BaseModel.from_weights("tiny", write_base(tmp_path, **overrides)).shape is None


@pytest.mark.parametrize("content", [None, b"", b"[]", b"\xff", b"{"])
def test_a_model_without_a_readable_config_has_no_shape(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    assert BaseModel.from_weights("tiny", tmp_path).shape is None


def test_a_model_is_known_by_its_name_aliases_origin_and_directory(tmp_path: Path) -> None:
    weights = write_base(tmp_path / "weights", _name_or_path="org/original")
    (tmp_path / "link").symlink_to(weights)
    model = BaseModel.from_weights("tiny", weights, ["org/tiny"])
    known = ["tiny", "org/tiny", "org/original", str(weights), str(tmp_path / "link")]
    assert all(model.accepts(name) for name in known)
    strange = ["", "Tiny", "org/other", str(tmp_path), "/", "/\0", "weights", "../weights"]
    assert not any(model.accepts(name) for name in strange)
