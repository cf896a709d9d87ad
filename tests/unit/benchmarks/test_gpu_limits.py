"""The formulas against figures computed by hand for a card of 4.3 TB/s and 790 TFLOP/s."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.gpu.config import GpuConfig
from benchmarks.gpu.limits import (
    Card,
    Shape,
    decode_tokens_s,
    lora_kept,
    prefill_s,
    request_tokens_s,
    training_tokens_s,
)
from configs import load

ROOT = Path(__file__).parents[3]
CARD = Card(4.3e12, 790e12, measured=True)


@pytest.fixture(scope="module")
def llama() -> Shape:
    config = load(GpuConfig, ROOT / "configs/bench/gpu.yaml")
    return Shape.from_config(config.model.architecture)


def test_the_shipped_architecture_has_the_size_of_llama_8b(llama: Shape) -> None:
    assert llama.parameters == pytest.approx(8.03e9, rel=1e-3)
    assert llama.weight_bytes() == pytest.approx(15.01e9, rel=1e-3)
    assert llama.kv_bytes() == 131_072
    assert llama.attention_flop == 524_288
    assert llama.lora_bytes(16) == pytest.approx(84e6, rel=2e-3)


@pytest.mark.parametrize(("batch", "tokens_s"), [(1, 284), (64, 11_661), (256, 22_297)])
def test_decoding_is_bound_by_memory(llama: Shape, batch: int, tokens_s: float) -> None:
    assert decode_tokens_s(llama, CARD, batch, 1024) == pytest.approx(tokens_s, rel=1e-3)


def test_a_weak_card_is_bound_by_arithmetic(llama: Shape) -> None:
    weak = Card(CARD.bytes_s, 1e12, measured=True)
    flop = llama.flop_per_token + llama.attention_flop * 1024
    assert decode_tokens_s(llama, weak, 64, 1024) == pytest.approx(1e12 / flop)


def test_prefill_takes_its_share_of_a_request(llama: Shape) -> None:
    assert prefill_s(llama, CARD, 1000) == pytest.approx(0.019, abs=0.001)
    whole = request_tokens_s(llama, CARD, 256, 1000, 1000)
    assert whole == pytest.approx(12_700, rel=0.01)
    assert whole < decode_tokens_s(llama, CARD, 256, 1500)
    assert request_tokens_s(llama, CARD, 256, 1000, 1000, weight=1.0, kv=1.0) > whole


def test_adapters_cost_the_bytes_that_are_read(llama: Shape) -> None:
    assert lora_kept(llama, CARD, 0.01, 0, 16) == 1.0
    assert lora_kept(llama, CARD, 0.01, 8, 16) == pytest.approx(0.985, abs=0.001)


def test_training_has_four_or_six_flop_a_parameter(llama: Shape) -> None:
    assert training_tokens_s(llama, CARD, recompute=False) == pytest.approx(24_600, rel=1e-3)
    assert training_tokens_s(llama, CARD, recompute=True) == pytest.approx(16_400, rel=1e-3)


def test_tied_embeddings_are_read_and_counted_once() -> None:
    fields = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
              "num_attention_heads": 2, "vocab_size": 10}  # fmt: skip
    tied = Shape.from_config(fields | {"tie_word_embeddings": True})
    untied = Shape.from_config(fields)
    assert tied.step_parameters == untied.step_parameters == tied.parameters
    assert untied.parameters == tied.parameters + 80
