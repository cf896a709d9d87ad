"""GGUF, by llama.cpp's own `gguf` package."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from finetune.conversion.gguf_tokenizer import add_tokenizer
from finetune.errors import ExportFailed
from finetune.plan.shape import BaseShape, read_config, read_shape

Kind = Literal["f32", "f16", "q8_0"]
KINDS: tuple[Kind, ...] = ("f32", "f16", "q8_0")
_ARCHITECTURE = "llama"
_FAMILIES = ("LlamaForCausalLM", "MistralForCausalLM")
_BLOCK = 32
_TOP = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_LAYER = {
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
}


class Named(NamedTuple):
    """One tensor, by its name in GGUF."""

    name: str
    value: NDArray[np.float32]


def write_gguf(model: Path, target: Path, kind: Kind = "f16", pre: str | None = None) -> Path:
    """Write the model of the folder `model` to the file `target`, whole; `target`.

    Norms stay float32. `pre` is llama.cpp's name of the way that text is split before its tokens
    are looked up; by default it is told from tokenizer.json. Raises ExportFailed.
    """
    import gguf

    shape, config = read_shape(model), read_config(model)
    if shape.family not in _FAMILIES or shape.biased:
        raise ExportFailed(
            f"GGUF is written for {' and '.join(_FAMILIES)} without biases; {model} is a "
            f"{shape.family}: convert the merged model with llama.cpp's convert_hf_to_gguf.py"
        )
    if target.exists():
        raise ExportFailed(f"{target} is there already: name another file")
    part = target.with_name(f".{target.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(part, _ARCHITECTURE, use_temp_file=True)
    _add_shape(writer, shape, config, model.name, kind)
    add_tokenizer(writer, model, shape.vocab, pre)
    for tensor in _tensors(model, shape):
        _add_tensor(writer, tensor, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.rename(target)
    return target


def _add_shape(
    writer: Any, shape: BaseShape, config: dict[str, Any], name: str, kind: Kind
) -> None:
    import gguf

    types = gguf.LlamaFileType
    rope = config.get("rope_parameters") or {}
    writer.add_name(name)
    writer.add_context_length(shape.max_positions or 2048)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0))
    writer.add_layer_norm_rms_eps(float(config.get("rms_norm_eps", 1e-6)))
    writer.add_vocab_size(shape.vocab)
    found = {"f32": types.ALL_F32, "f16": types.MOSTLY_F16, "q8_0": types.MOSTLY_Q8_0}
    writer.add_file_type(found[kind])


def _add_tensor(writer: Any, tensor: Named, kind: Kind) -> None:
    import gguf

    value = tensor.value
    if value.ndim == 1 or kind == "f32":
        writer.add_tensor(tensor.name, np.ascontiguousarray(value))
    elif kind == "q8_0" and value.shape[-1] % _BLOCK == 0:
        quantised = gguf.GGMLQuantizationType.Q8_0
        packed = gguf.quants.quantize(np.ascontiguousarray(value), quantised)
        writer.add_tensor(tensor.name, packed, raw_dtype=quantised)
    else:
        writer.add_tensor(tensor.name, np.ascontiguousarray(value.astype(np.float16)))


def _tensors(model: Path, shape: BaseShape) -> Iterator[Named]:
    from safetensors import safe_open

    factors = _rope_factors(model)
    if factors is not None:
        yield Named("rope_freqs.weight", factors)
    files = sorted(model.glob("*.safetensors"))
    if not files:
        raise ExportFailed(f"{model} holds no *.safetensors")
    for path in files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                if name == "lm_head.weight" and shape.tied:
                    continue
                value = file.get_tensor(name).float().numpy()
                yield Named(_gguf_name(name), _turned(name, value, shape))


def _gguf_name(name: str) -> str:
    if name in _TOP:
        return _TOP[name]
    parts = name.split(".", 3)
    if parts[:2] == ["model", "layers"] and len(parts) == 4 and parts[3] in _LAYER:
        return f"blk.{parts[2]}.{_LAYER[parts[3]]}"
    raise ExportFailed(f"GGUF has no place for the tensor {name} of this architecture")


def _turned(name: str, value: NDArray[np.float32], shape: BaseShape) -> NDArray[np.float32]:
    """llama.cpp rotates neighbouring features of a head, transformers those half a head apart:
    rows of queries and keys are put in the other order."""
    heads = {"q_proj": shape.heads, "k_proj": shape.kv_heads}.get(name.split(".")[-2])
    if heads is None:
        return value
    halves = value.reshape(heads, 2, shape.head_dim // 2, value.shape[-1])
    return halves.swapaxes(1, 2).reshape(value.shape)


def _rope_factors(model: Path) -> NDArray[np.float32] | None:
    """By how much each rotation is slowed (Llama 3.1's long contexts); None for none."""
    from transformers import AutoConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = AutoConfig.from_pretrained(model, local_files_only=True)
    rope = config.rope_parameters or {}
    kind = rope.get("rope_type", "default")
    if kind == "default":
        return None
    if kind != "llama3":
        raise ExportFailed(f"GGUF export knows no rope_type {kind!r}, only default and llama3")
    slowed, _ = ROPE_INIT_FUNCTIONS[kind](config, "cpu")
    size = 2 * len(slowed)
    plain = 1.0 / rope["rope_theta"] ** (np.arange(0, size, 2, dtype=np.float32) / size)
    found: NDArray[np.float32] = (plain / slowed.numpy()).astype(np.float32)
    return found
