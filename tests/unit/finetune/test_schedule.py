"""Which examples make which step, and the rates of steps."""

from __future__ import annotations

from collections import Counter

import pytest

from configs import parse
from finetune.config import TrainConfig
from finetune.data.tokenise import TokenisedPart
from finetune.data.tokenizer import Encoded
from finetune.train.rates import learning_rate
from finetune.train.schedule import Schedule, in_batches

LENGTHS = [3, 9, 2, 7, 7, 4, 10, 1, 5, 6]


def part(lengths: list[int] = LENGTHS) -> TokenisedPart:
    found = TokenisedPart()
    for index, length in enumerate(lengths):
        tokens = Encoded(list(range(length)), [False] + [True] * (length - 1))
        found.append(bytes([index] * 16), tokens)
    return found


def schedule(seed: int = 0, **settings: object) -> Schedule:
    return Schedule(part(), parse(TrainConfig, {"batch_size": 2, **settings}), 10, seed)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize(("accumulation", "workers"), [(1, 1), (2, 1), (2, 3)])
def test_each_epoch_has_every_example_once(packing: bool, accumulation: int, workers: int) -> None:
    found = schedule(packing=packing, accumulation=accumulation, workers=workers, epochs=2)
    assert found.total == 2 * found.steps_per_epoch
    for epoch in range(2):
        steps = range(epoch * found.steps_per_epoch, (epoch + 1) * found.steps_per_epoch)
        micros = [
            found.step(index).of(worker, workers) for index in steps for worker in range(workers)
        ]
        assert {len(each) for each in micros} == {accumulation}
        seen = Counter(example for each in micros for micro in each for example in micro)
        assert seen == Counter(range(len(LENGTHS)))


def test_packs_are_filled_and_never_over_full() -> None:
    found = schedule(packing=True, batch_size=1)
    packs = [found.step(index).micro[0] for index in range(found.steps_per_epoch)]
    assert max(sum(LENGTHS[i] for i in pack) for pack in packs) <= 10
    assert len(packs) == 6


def test_a_step_is_the_same_in_whatever_order_it_is_asked_for() -> None:
    forwards = schedule(epochs=3)
    backwards = schedule(epochs=3)
    steps = [forwards.step(index) for index in range(forwards.total)]
    assert [backwards.step(i) for i in reversed(range(forwards.total))] == steps[::-1]
    assert steps[0] != forwards.step(forwards.steps_per_epoch), "epochs differ in their order"
    assert [schedule(seed=1, epochs=3).step(i) for i in range(forwards.total)] != steps


def test_parts_of_epochs_and_max_steps_bound_the_run() -> None:
    assert schedule(packing=False, epochs=0.5).total == 3
    assert schedule(packing=False, epochs=0.01).total == 1
    assert schedule(packing=False, epochs=10, max_steps=4).total == 4


def test_batches_without_gradients_keep_to_their_tokens() -> None:
    assert in_batches([4, 4, 4, 20, 1], 8) == [(0, 1), (2,), (3,), (4,)]
    assert in_batches([], 8) == []


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("constant", [0.5, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 0.853553, 0.5, 0.146447]),
    ],
)
def test_rates_rise_and_fall(kind: str, wanted: list[float]) -> None:
    train = parse(TrainConfig, {"schedule": kind, "warmup": 0.2, "learning_rate": 0.5})
    assert [2 * learning_rate(train, step, 5) for step in range(5)] == pytest.approx(
        wanted, abs=1e-6
    )


def test_without_warm_up_the_first_rate_is_the_highest() -> None:
    train = parse(TrainConfig, {"warmup": 0.0, "learning_rate": 0.5})
    assert learning_rate(train, 0, 100) == 0.5
