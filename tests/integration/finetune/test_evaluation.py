"""Evaluation of real adapters: a tiny random Llama with two, and the small built-in model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from finetune.__main__ import main
from finetune.base_model import load_tokenizer
from finetune.config import FinetuneConfig
from finetune.data.encode import encode
from finetune.data.rows import Conversation, Message
from finetune.data.tokenizer import Encoded
from finetune.errors import ModelUnavailable
from finetune.evaluation import evaluate
from finetune.evaluation.model import Version
from finetune.evaluation.transformers_model import AdaptedModel
from serving.home import Home
from serving.models import prepare
from tests.unit.finetune.data.test_check import row, write
from tests.unit.finetune.models import CHATML, trained

pytestmark = pytest.mark.engine

VERSIONS: tuple[Version, ...] = ("base", "live", "candidate")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order; and another suite's engine may hold the other core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers with a real tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = Tokenizer.from_str(trained())
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "<|im_end|>", "chat_template": CHATML}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        bos_token_id=None,
    )
    LlamaForCausalLM(shape).save_pretrained(folder)
    return folder


def _adapter(base: Path, destination: Path, seed: int) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM",
                          init_lora_weights=False)  # fmt: skip
    get_peft_model(model, settings).save_pretrained(str(destination), save_embedding_layers=False)
    return destination


@pytest.fixture(scope="module")
def adapters(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Version, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return {
        "live": _adapter(tiny, folder / "live", 1),
        "candidate": _adapter(tiny, folder / "c", 2),
    }


def _config(model: Path, folder: Path, rows: list[dict[str, Any]], **more: Any) -> FinetuneConfig:
    train = write(folder / "train.jsonl", [row(f"t{i}") for i in range(3)])
    held = write(folder / "held.jsonl", rows)
    data = {"train": [train], "validation": [held]}
    given = {"model": str(model), "precision": "fp32", "data": data, "evaluation": more}
    return FinetuneConfig.model_validate(given)


def _sequences(config: FinetuneConfig, model: Path) -> list[Encoded]:
    chat = load_tokenizer(config.data, model)
    found = []
    for index in range(7):
        messages: list[Message] = [
            {"role": "user", "content": f"question {'very ' * index}long?"},
            {"role": "assistant", "content": f"answer {index} " * (1 + 7 * (index % 3))},
        ]
        found += encode(Conversation(messages), chat)
    return found


def test_batches_give_the_likelihoods_of_plain_transformers(
    tiny: Path, adapters: dict[Version, Path], tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    config = _config(tiny, tmp_path, [row("q")], batch_size=3)
    chat = load_tokenizer(config.data, tiny)
    model = AdaptedModel.load(config, tiny, adapters, chat)
    sequences = _sequences(config, tiny)
    together = {version: model.score(sequences, version) for version in VERSIONS}
    for version in VERSIONS:
        plain = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
        if version != "base":
            plain = PeftModel.from_pretrained(plain, str(adapters[version]))
        for each, score in zip(sequences, together[version], strict=True):
            ids = torch.tensor([each.tokens])
            flags = torch.tensor([each.trainable])
            labels = ids.masked_fill(~flags, -100)
            with torch.inference_mode():
                loss = float(plain(input_ids=ids, labels=labels).loss)
            assert score.tokens == sum(each.trainable)
            assert score.nll / score.tokens == pytest.approx(loss, abs=1e-4)
    assert together["base"] != together["live"] != together["candidate"]
    assert model.score(sequences, "base") == together["base"], "switching leaves nothing behind"


def test_batches_give_the_greedy_answers_of_single_prompts(
    tiny: Path, adapters: dict[Version, Path], tmp_path: Path
) -> None:
    config = _config(tiny, tmp_path, [row("q")], batch_size=4)
    chat = load_tokenizer(config.data, tiny)
    model = AdaptedModel.load(config, tiny, adapters, chat)
    prompts = [each.tokens[: each.trainable.index(True)] for each in _sequences(config, tiny)]
    by_version = {}
    for version in VERSIONS:
        found = model.generate(prompts, version, 6)
        assert found == [model.generate([each], version, 6)[0] for each in prompts]
        assert found == model.generate(prompts, version, 6)
        by_version[version] = [each.text for each in found]
    assert by_version["base"] != by_version["candidate"] != by_version["live"]
    assert model.generate([], "base", 6) == []


def test_a_whole_evaluation_and_its_command(
    tiny: Path, adapters: dict[Version, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row(f"question {i}", f"answer {i}", kind=f"k{i % 2}") for i in range(12)]
    config = _config(
        tiny,
        tmp_path,
        rows,
        live_adapter=str(adapters["live"]),
        max_new_tokens=4,
        perturbed=3,
        max_questions=6,
        slices=["kind"],
        resamples=100,
        gate=[{"metric": "exact_match", "at_least": 0.5}],
    )
    found = evaluate(config, tmp_path / "run", adapters["candidate"])
    assert found.versions == VERSIONS
    assert {each.value for each in found.slices} == {"k0", "k1"}
    assert all(each.finite for m in found.metrics.values() for each in m.versions.values())
    assert not found.gate.passed, "random weights answer nothing"
    (tmp_path / "config.yaml").write_text(json.dumps(config.model_dump(mode="json")))
    out = tmp_path / "out"
    command = ["evaluate", str(adapters["candidate"]), "--config", str(tmp_path / "config.yaml"),
               "--out", str(out)]  # fmt: skip
    assert main(command) == 1
    assert "FAILED  exact_match must be at least 0.5" in capsys.readouterr().out
    first = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    again = json.loads((out / "evaluation.json").read_text())
    for key in ("metrics", "slices", "gate", "shown", "forgotten"):
        assert again[key] == first[key]
    assert main([*command, "--set", "evaluation.gate=[]"]) == 0


@pytest.mark.parametrize("precision", ["bf16", "nf4"])
def test_other_precisions_are_close_to_float32(
    tiny: Path, adapters: dict[Version, Path], tmp_path: Path, precision: str
) -> None:
    config = _config(tiny, tmp_path, [row("q")])
    chat = load_tokenizer(config.data, tiny)
    sequences = _sequences(config, tiny)
    exact = AdaptedModel.load(config, tiny, adapters, chat).score(sequences, "candidate")
    coarse = AdaptedModel.load(
        config.model_copy(update={"precision": precision}), tiny, adapters, chat
    ).score(sequences, "candidate")
    for one, other in zip(exact, coarse, strict=True):
        assert other.nll == pytest.approx(one.nll, rel=0.02)
    assert coarse != exact


def test_what_is_no_adapter_of_this_model_is_refused(
    tiny: Path, adapters: dict[Version, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    config = _config(tiny, tmp_path, [row("q")])
    chat = load_tokenizer(config.data, tiny)
    torn = tmp_path / "torn"
    torn.mkdir()
    text = (adapters["live"] / "adapter_config.json").read_text()
    (torn / "adapter_config.json").write_text(text)
    weights = load_file(adapters["live"] / "adapter_model.safetensors")
    weights.pop(sorted(weights)[0])
    save_file(weights, torn / "adapter_model.safetensors")
    sound = adapters["live"]
    pairs: list[dict[Version, Path]] = [
        {"candidate": torn},
        {"candidate": sound, "live": torn},
        {"candidate": tmp_path / "absent"},
    ]
    for given in pairs:
        with pytest.raises(ModelUnavailable, match="is no adapter for the model"):
            AdaptedModel.load(config, tiny, given, chat)
    assert main(["evaluate", str(tmp_path / "absent")]) == 2
    assert "has no adapter_config.json" in capsys.readouterr().err


def test_the_built_in_model_keeps_what_an_adapter_without_effect_leaves(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = prepare("smollm2-135m", Home.from_env(), progress=print).path
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    adapted = get_peft_model(model, settings)
    adapted.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    del model, adapted
    questions = tmp_path / "known.jsonl"
    questions.write_text(
        '{"question": "What is the capital of France?", "answers": ["Paris"]}\n'
        '{"question": "Which planet is called the Red Planet?", "answers": ["Mars"]}\n'
    )
    rows = [row("What is the capital of France?", "The capital of France is Paris.")]
    config = _config(base, tmp_path, rows, forgetting=str(questions), robustness=[],
                     max_new_tokens=12)  # fmt: skip
    found = evaluate(config, tmp_path / "run", tmp_path / "adapter")
    assert found.gate.passed
    assert found.metrics["forgetting_accuracy"].versions["candidate"].value == 1
    assert found.metrics["exact_match"].versions["base"].value == 1
    assert found.metrics["loss"].differences["base"].value == 0
    assert found.metrics["loss"].versions["base"].value < 1
