"""A trained adapter merged, and in other forms: the same logits each time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune.__main__ import main
from finetune.conversion.gguf_file import write_gguf
from finetune.errors import ExportFailed
from finetune.merge import merge
from tests.integration.finetune.tiny import tiny_llama

IDS = torch.tensor([[5, 40, 41, 9, 300, 17, 2, 2, 88]])


def adapter_on(model: Path, folder: Path) -> Path:
    """A PEFT adapter that changes much."""
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(model)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"])
    adapted = get_peft_model(base, config)
    for name, value in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.2)
    adapted.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapter_on(model, tmp_path_factory.mktemp("adapters") / "a")


@pytest.fixture(scope="module")
def merged(model: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return merge(adapter, model, tmp_path_factory.mktemp("merged") / "whole")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found = model.eval()(IDS).logits
    assert isinstance(found, torch.Tensor)
    return found


def expected(model: Path, adapter: Path) -> torch.Tensor:
    return logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), adapter))


def test_a_merged_model_is_the_base_with_the_adapter(
    model: Path, adapter: Path, merged: Path
) -> None:
    found = logits(AutoModelForCausalLM.from_pretrained(merged))
    plain = logits(AutoModelForCausalLM.from_pretrained(model))
    assert torch.allclose(found, expected(model, adapter), atol=1e-4)
    assert (found - plain).abs().max() > 0.1
    assert (merged / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()
    assert not [each for each in merged.parent.iterdir() if each != merged]


def test_merging_keeps_the_base_models_dtype(model: Path, adapter: Path, tmp_path: Path) -> None:
    AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).save_pretrained(
        tmp_path / "base"
    )
    found = merge(adapter, tmp_path / "base", tmp_path / "whole")
    with safe_open(found / "model.safetensors", framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118


def test_an_adapter_of_another_model_is_refused(adapter: Path, model: Path, tmp_path: Path) -> None:
    settings = json.loads((adapter / "adapter_config.json").read_text())
    other = shutil.copytree(adapter, tmp_path / "other")
    (other / "adapter_config.json").write_text(json.dumps(settings | {"r": 8}))
    with pytest.raises(ExportFailed, match="does not fit"):
        merge(other, model, tmp_path / "whole")
    with pytest.raises(ExportFailed, match="is there already"):
        merge(adapter, model, model)
    assert not (tmp_path / "whole").exists()


@pytest.mark.parametrize(("kind", "tolerance"), [("f32", 1e-4), ("f16", 2e-2), ("q8_0", 0.2)])
def test_gguf_read_back_gives_the_same_logits(
    merged: Path, tmp_path: Path, kind: Any, tolerance: float
) -> None:
    write_gguf(merged, tmp_path / "m.gguf", kind)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32)
    found, whole = logits(again), logits(AutoModelForCausalLM.from_pretrained(merged))
    assert (found - whole).abs().max() < tolerance * whole.abs().max()
    assert [each.name for each in tmp_path.iterdir()] == ["m.gguf"]


def test_gguf_has_the_tokenizer(merged: Path, tmp_path: Path) -> None:
    write_gguf(merged, tmp_path / "m.gguf")
    own = AutoTokenizer.from_pretrained(merged)
    again = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    text = "The capital of France is Paris.<|im_end|>"
    assert again(text)["input_ids"] == own(text)["input_ids"]
    assert again.chat_template == own.chat_template


def test_gguf_slows_rotations_as_llama_31_does(tmp_path: Path) -> None:
    from gguf import GGUFReader

    model = tiny_llama(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config["rope_parameters"] = {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
    }  # fmt: skip
    (model / "config.json").write_text(json.dumps(config))
    write_gguf(model, tmp_path / "m.gguf")
    (found,) = [each for each in GGUFReader(tmp_path / "m.gguf").tensors if "rope" in each.name]
    assert found.data.shape == (8,)
    assert found.data[0] == pytest.approx(1.0)
    assert found.data[-1] == pytest.approx(8.0)
    assert np.all(np.diff(found.data) > -1e-4)


def test_gguf_of_another_family_is_refused(merged: Path, tmp_path: Path) -> None:
    config = json.loads((merged / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps(config | {"architectures": ["Qwen3ForCausalLM"]})
    )
    with pytest.raises(ExportFailed, match=r"written for LlamaForCausalLM .* is a Qwen3"):
        write_gguf(tmp_path, tmp_path / "m.gguf")


def test_the_commands_merge_and_export(
    model: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "whole")
    assert main(["merge", str(adapter), "--base", str(model), "--out", out]) == 0
    assert (Path(out) / "model.safetensors").is_file()
    file = str(tmp_path / "m.gguf")
    given = ["export", str(adapter), "--base", str(model), "--format", "gguf", "--out", file]
    assert main(given) == 0
    assert Path(file).stat().st_size > 10_000
    assert main([*given[:-1], file]) == 2
    assert "is there already" in capsys.readouterr().err


def test_onnx_gives_the_same_logits(merged: Path, tmp_path: Path) -> None:
    onnxruntime: Any = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    out = str(tmp_path / "onnx")
    assert main(["export", str(merged), "--format", "onnx", "--out", out]) == 0
    session = onnxruntime.InferenceSession(f"{out}/model.onnx")
    given = {"input_ids": IDS.numpy(), "attention_mask": torch.ones_like(IDS).numpy()}
    (found,) = session.run(["logits"], given)
    whole = logits(AutoModelForCausalLM.from_pretrained(merged)).numpy()
    assert np.abs(found - whole).max() < 1e-4
