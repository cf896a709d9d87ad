"""Packed examples see nothing of each other; fused operations compute what plain ones do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from finetune.data.tokenizer import Encoded
from finetune.train.batch import make_batch
from finetune.train.learner import Learner
from finetune.train.loss import pair_loss, token_loss
from finetune.train.model import Place, load_model
from finetune.train.projection import join_adapters
from tests.integration.finetune import tiny

CPU = Place(torch.device("cpu"), "fp32")


def examples() -> list[Encoded]:
    generator = torch.Generator().manual_seed(1)
    found = []
    for length in (9, 1, 31, 14):
        tokens = torch.randint(10, 300, (length,), generator=generator).tolist()
        found.append(Encoded(tokens, [False, *(i % 3 > 0 for i in range(1, length))]))
    return found


@pytest.fixture
def learner(model: Path, facts: Path) -> Learner:
    found = load_model(tiny.config(model, facts), model, CPU)
    for name, weight in found.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return Learner(found)


@pytest.mark.parametrize("attention", ["isolated", "sdpa"])
def test_an_example_in_a_pack_gets_the_logits_that_it_gets_alone(
    learner: Learner, model: Path, attention: str
) -> None:
    learner.model.get_base_model().set_attn_implementation(attention)
    learner = Learner(learner.model)
    head = learner.model.get_base_model().get_output_embeddings()
    with torch.no_grad():
        packed = head(learner.hidden(make_batch(examples())))
        alone = torch.cat([head(learner.hidden(make_batch([each]))) for each in examples()])
        plain = AutoModelForCausalLM.from_pretrained(model)(
            torch.tensor([examples()[2].tokens])
        ).logits[0]
    torch.testing.assert_close(packed, alone, atol=2e-5, rtol=0)
    # The adapter does something, or equality would say nothing of it.
    assert (packed[10:41] - plain).abs().max() > 0.01


def test_what_precedes_an_example_changes_nothing_for_it(learner: Learner) -> None:
    one, *rest = examples()
    other = Encoded([token + 1 for token in one.tokens], one.trainable)
    with torch.no_grad():
        first = learner.hidden(make_batch([one, *rest]))
        second = learner.hidden(make_batch([other, *rest]))
    assert torch.equal(first[9:], second[9:])
    assert not torch.equal(first[:9], second[:9])


def test_an_adapted_layer_computes_what_peft_does(model: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(model).requires_grad_(False)
    torch.manual_seed(3)
    plain = get_peft_model(base, LoraConfig(r=4, init_lora_weights=False, use_rslora=True))
    tokens = torch.randint(10, 300, (1, 20))

    def grads() -> dict[str, torch.Tensor]:
        plain.zero_grad()
        plain(tokens).logits.square().mean().backward()
        return {n: p.grad.clone() for n, p in plain.named_parameters() if p.grad is not None}

    wanted = grads()
    assert join_adapters(plain) == 4
    found = grads()
    assert wanted.keys() == found.keys()
    assert len(wanted) == 8
    for name, each in wanted.items():
        torch.testing.assert_close(found[name], each, atol=1e-7, rtol=1e-4)


def test_the_loss_and_its_gradient_are_those_of_cross_entropy() -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(32, 400, bias=True).requires_grad_(False)
    hidden = torch.randn(50, 32, requires_grad=True)
    targets = torch.randint(0, 400, (50,))
    weights = torch.rand(50)
    found = token_loss(hidden, head, targets)
    (found.nll * weights).sum().backward()
    grad, hidden.grad = hidden.grad, None
    logits = head(hidden)
    wanted = cross_entropy(logits, targets, reduction="none")
    (wanted * weights).sum().backward()
    assert grad is not None
    assert hidden.grad is not None
    torch.testing.assert_close(found.nll, wanted)
    torch.testing.assert_close(grad, hidden.grad)
    assert torch.equal(found.correct, logits.argmax(-1) == targets)


def test_dpo_starts_at_the_logarithm_of_two_and_prefers_the_chosen() -> None:
    reference = torch.tensor([-5.0, -7.0])
    same = pair_loss(reference, reference, beta=0.1)
    assert same.loss.item() == pytest.approx(0.693147, abs=1e-6)
    better = pair_loss(torch.tensor([-4.0, -8.0]), reference, beta=0.5)
    # Margin 0.5 × (1 + 1) = 1; -log sigmoid(1).
    assert better.loss.item() == pytest.approx(0.313262, abs=1e-6)
    assert better.preferred.tolist() == [True]
