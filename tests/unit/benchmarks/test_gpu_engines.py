"""How engines are started, and the model directories and adapters that they are given."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from benchmarks.gpu.config import GpuConfig
from benchmarks.gpu.context import Model
from benchmarks.gpu.encoder import write_encoder
from benchmarks.gpu.engines import sides_of
from benchmarks.gpu.model import ModelConfig, prepare
from benchmarks.gpu.peft_files import write_adapters
from benchmarks.gpu.steps.embeddings import WORDS
from configs import ConfigError, load, parse
from serving.adapters.base_model import BaseModel
from serving.adapters.checks import Limits, check
from serving.config import ServeConfig
from serving.home import Home
from serving.models import resolve

ROOT = Path(__file__).parents[3]
CONFIG = load(GpuConfig, ROOT / "configs/bench/gpu.yaml")
SMALL = CONFIG.model.architecture | {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512,
}  # fmt: skip


def written(out: Path) -> Model:
    return prepare(ModelConfig(name="llama-3.1-8b", architecture=SMALL), out)


def filled(words: tuple[str, ...], port: str = "1") -> list[str]:
    return [word.replace("{port}", port) for word in words]


def test_both_sides_get_the_same_engine(tmp_path: Path) -> None:
    model = written(tmp_path)
    corral, without_ray = sides_of("corral", CONFIG.engines["corral"], model, tmp_path / "home")
    (vllm,) = sides_of("vllm", CONFIG.engines["vllm"], model, tmp_path / "home")
    assert "serving.cli" in corral.command
    assert "serving.local_stack" in without_ray.command
    assert corral.command[4:] == without_ray.command[3:], "the same configuration without Ray"
    words = filled(corral.command)
    sets = [after for word, after in pairwise(words) if word == "--set"]
    serve = load(ServeConfig, words[words.index("--config") + 1], sets)
    engine = serve.models[0].engine
    assert engine.kind == "vllm"
    assert serve.models[0].weights == model.path
    flags = set(filled(vllm.command))
    for field in ("load_format", "max_model_len", "max_num_seqs", "max_num_batched_tokens",
                  "gpu_memory_utilization", "dtype"):  # fmt: skip
        assert f"--{field.replace('_', '-')}={getattr(engine, field)}" in flags
    assert not engine.lora.enabled
    assert "--enable-lora" not in flags


@pytest.mark.parametrize("name", sorted(CONFIG.engines))
def test_every_engine_of_the_shipped_file_makes_a_command(name: str, tmp_path: Path) -> None:
    for side in sides_of(name, CONFIG.engines[name], written(tmp_path), tmp_path / "home"):
        assert filled(side.command) != list(side.command), "it listens on the port it is given"
        assert side.model or CONFIG.engines[name].own_model


def test_nested_settings_survive_the_command_line(tmp_path: Path) -> None:
    engines = {"v": {"kind": "vllm", "serve_config": "local.yaml"}}
    steps = [{"name": "b", "run": {"kind": "best"}}]
    data = {"model": {"name": "m", "directory": "m"}, "engines": engines, "steps": steps}
    config = parse(GpuConfig, data)
    (side,) = sides_of("v", config.engines["v"], written(tmp_path), tmp_path)
    (word,) = [w for w in filled(side.command) if w.startswith("--override-generation-config=")]
    assert json.loads(word.partition("=")[2])["top_p"] == 0.9


def test_a_written_model_is_one_that_corral_serves(tmp_path: Path) -> None:
    model = written(tmp_path)
    assert resolve(model.path, Home(tmp_path / "home")).kind == "local"
    tokenizer = Tokenizer.from_file(f"{model.path}/tokenizer.json")
    assert tokenizer.get_vocab_size() == SMALL["vocab_size"]
    assert tokenizer.decode(tokenizer.encode("Hällo").ids) == "Hällo"
    assert 0 < model.first_id < model.last_id < SMALL["vocab_size"] - 2


def test_a_written_encoder_is_one_that_corral_serves(tmp_path: Path) -> None:
    path = tmp_path / "models" / "random-minilm"
    write_encoder(path, WORDS)
    assert resolve(str(path), Home(tmp_path / "home")).kind == "local"
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    assert len(tokenizer.encode(" ".join(WORDS)).ids) == len(WORDS) + 2, "a token a word"
    sides = sides_of("embedder", CONFIG.engines["embedder"], written(tmp_path), tmp_path / "home")
    assert f"models.0.source={json.dumps(str(path))}" in sides[0].command


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model 'nothing'"):
        prepare(ModelConfig(name="m", directory="nothing"), tmp_path)


def test_random_adapters_pass_the_checks_and_differ(tmp_path: Path) -> None:
    model = written(tmp_path)
    names = write_adapters(tmp_path / "adapters", model.shape, model.path, 16, 3)
    base = BaseModel.from_weights(model.name, model.path, {model.path})
    paths = [tmp_path / "adapters" / name / "1" for name in names]
    checked = [check(path, base, Limits(max_rank=16)) for path in paths]
    assert {found.rank for found in checked} == {16}
    assert {found.pairs for found in checked} == {7 * 2}
    assert len({(path / "adapter_model.safetensors").read_bytes() for path in paths}) == 3
    assert write_adapters(tmp_path / "adapters", model.shape, model.path, 16, 3) == names
