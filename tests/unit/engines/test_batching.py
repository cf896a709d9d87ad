"""The batcher, driven by plain functions instead of a model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from serving.engines.batching import Batcher, BatcherClosed, Pass, plan_pass
from serving.errors import EngineStalled


class Model:
    """Doubles numbers; passes wait at a gate that the test opens."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(list(items))
        self.entered.set()
        assert self.gate.wait(10)
        if any(item < 0 for item in items):
            raise ValueError("negative")
        return [2 * item for item in items]

    async def busy(self) -> None:
        """Return once a pass is in progress."""
        await asyncio.to_thread(self.entered.wait, 10)


Make = Callable[..., Batcher[int, int]]


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
async def make(model: Model) -> AsyncIterator[Make]:
    made: list[Batcher[int, int]] = []

    def build(
        run: Callable[[list[int]], Sequence[int]] = model,
        length: Callable[[int], int] = lambda item: 1,
        **options: object,
    ) -> Batcher[int, int]:
        made.append(Batcher(run, length, **({"max_tokens": 8} | options)))  # type: ignore[arg-type]
        return made[-1]

    yield build
    model.gate.set()
    for batcher in made:
        await batcher.close()


def spawn(batcher: Batcher[int, int], items: list[int]) -> asyncio.Task[list[int]]:
    return asyncio.create_task(batcher.submit(items))


async def queued(batcher: Batcher[int, int], count: int) -> None:
    async with asyncio.timeout(10):  # the queue tells nobody when it changes: poll
        while batcher.waiting != count:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def at_rest(batcher: Batcher[int, int]) -> None:
    """Return once the worker sleeps, which it does a moment after the last answer."""
    async with asyncio.timeout(10):
        while not batcher.idle:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_results_come_back_in_the_order_of_the_request(make: Make, model: Model) -> None:
    model.gate.set()
    batcher = make(length=lambda item: item, pass_cost=2)
    assert await batcher.submit([7, 1, 5, 3, 1]) == [14, 2, 10, 6, 2]
    assert len(model.batches) > 1


async def test_an_empty_request_computes_nothing(make: Make, model: Model) -> None:
    assert await make().submit([]) == []
    assert model.batches == []


async def test_requests_that_arrive_during_a_pass_share_the_next(make: Make, model: Model) -> None:
    batcher = make()
    first = spawn(batcher, [0])
    await model.busy()
    others = [spawn(batcher, [item]) for item in (1, 2, 3)]
    await queued(batcher, 3)
    model.gate.set()
    assert await asyncio.gather(first, *others) == [[0], [2], [4], [6]]
    assert model.batches == [[0], [1, 2, 3]]


async def test_an_idle_batcher_waits_for_as_many_as_came_last(make: Make, model: Model) -> None:
    batcher = make(max_wait_s=60)
    first = spawn(batcher, [0])
    await model.busy()
    others = [spawn(batcher, [item]) for item in (1, 2, 3)]
    await queued(batcher, 3)
    model.gate.set()
    await asyncio.gather(first, *others)
    await at_rest(batcher)
    again = [spawn(batcher, [item]) for item in (4, 5)]
    await queued(batcher, 2)
    assert await asyncio.gather(*again, batcher.submit([6])) == [[8], [10], [12]]
    assert model.batches[2:] == [[4, 5, 6]]


async def test_a_lone_client_does_not_wait_for_company(make: Make, model: Model) -> None:
    model.gate.set()
    batcher = make(max_wait_s=3600)
    assert [await batcher.submit([item]) for item in (1, 2)] == [[2], [4]]


async def test_waiting_ends_when_a_pass_is_full(make: Make, model: Model) -> None:
    batcher = make(max_wait_s=3600)
    first = [spawn(batcher, [0])]
    await model.busy()
    first += [spawn(batcher, [0]), spawn(batcher, [0])]
    await queued(batcher, 2)
    model.gate.set()
    await asyncio.gather(*first)
    assert await batcher.submit([1] * 8) == [2] * 8


async def test_padded_tokens_stay_within_the_budget(make: Make, model: Model) -> None:
    model.gate.set()
    seen: list[Pass] = []
    batcher = make(length=lambda item: item, max_tokens=20, pass_cost=1000, observe=seen.append)
    await batcher.submit([9, 2, 7, 4, 1, 1, 3, 8])
    assert sum(one.items for one in seen) == 8
    assert max(one.padded_tokens for one in seen) <= 20
    assert sum(one.tokens for one in seen) == 35


async def test_an_item_beyond_the_budget_runs_alone(make: Make, model: Model) -> None:
    model.gate.set()
    batcher = make(length=lambda item: item, max_tokens=8)
    assert await batcher.submit([50, 1, 1]) == [100, 2, 2]
    assert [50] in model.batches


async def test_a_small_request_does_not_wait_for_a_large_one(make: Make, model: Model) -> None:
    batcher = make()
    large = spawn(batcher, [1] * 1000)
    await model.busy()
    small = spawn(batcher, [5])
    await queued(batcher, 993)
    model.gate.set()
    assert await small == [10]
    assert [5 in batch for batch in model.batches].index(True) == 1
    assert await large == [2] * 1000


async def test_a_long_item_is_not_starved_by_a_stream_of_short_ones(
    make: Make, model: Model
) -> None:
    batcher = make(length=lambda item: item, max_tokens=8, pass_cost=0)
    short = [spawn(batcher, [1])]
    await model.busy()
    long = spawn(batcher, [8])
    await queued(batcher, 1)
    short += [spawn(batcher, [1]) for _ in range(50)]
    await queued(batcher, 51)
    model.gate.set()
    assert await long == [16]
    assert model.batches.index([8]) == 1
    await asyncio.gather(*short)


async def test_a_cancelled_request_is_never_computed(make: Make, model: Model) -> None:
    batcher = make()
    first = spawn(batcher, [0])
    await model.busy()
    gone, kept = spawn(batcher, [3, 3]), spawn(batcher, [4])
    await queued(batcher, 3)
    gone.cancel()
    await queued(batcher, 1)
    model.gate.set()
    assert [await first, await kept] == [[0], [8]]
    assert model.batches == [[0], [4]]


async def test_a_request_cancelled_halfway_gives_up_its_rest(make: Make, model: Model) -> None:
    batcher = make()
    gone = spawn(batcher, [1] * 100)
    await model.busy()
    gone.cancel()
    await queued(batcher, 0)
    model.gate.set()
    assert await batcher.submit([2]) == [4]
    assert model.batches == [[1] * 8, [2]]


async def test_a_bad_request_fails_alone(make: Make, model: Model) -> None:
    batcher = make()
    first = spawn(batcher, [0])
    await model.busy()
    good, bad, other = spawn(batcher, [1, 2]), spawn(batcher, [3, -1]), spawn(batcher, [4])
    await queued(batcher, 5)
    model.gate.set()
    with pytest.raises(ValueError, match="negative"):
        await bad
    assert [await first, await good, await other] == [[0], [2, 4], [8]]
    assert sorted(model.batches[1]) == [-1, 1, 2, 3, 4]


async def test_closing_refuses_new_and_fails_waiting_requests(make: Make, model: Model) -> None:
    batcher = make()
    first = spawn(batcher, [0])
    await model.busy()
    waiting = spawn(batcher, [1])
    await queued(batcher, 1)
    closing = asyncio.create_task(batcher.close())
    await queued(batcher, 0)
    model.gate.set()
    await closing
    assert await first == [0]
    with pytest.raises(BatcherClosed):
        await waiting
    with pytest.raises(BatcherClosed):
        await batcher.submit([1])


async def test_closing_does_not_wait_for_a_hung_pass(make: Make, model: Model) -> None:
    batcher = make()
    hung = spawn(batcher, [0])
    await model.busy()
    await batcher.close(timeout_s=0.01)
    with pytest.raises(BatcherClosed):
        await hung


async def test_probe_runs_a_pass_of_its_own_when_idle(make: Make, model: Model) -> None:
    model.gate.set()
    batcher = make()
    await batcher.probe(9, 10)
    await batcher.probe(9, 10)
    assert model.batches == [[9], [9]]


async def test_probe_counts_passes_made_for_others(make: Make, model: Model) -> None:
    model.gate.set()
    batcher = make()
    await batcher.submit([1])
    await batcher.probe(9, 10)
    assert model.batches == [[1]]


async def test_probe_reports_a_hung_pass_and_leaves_nothing_queued(
    make: Make, model: Model
) -> None:
    batcher = make()
    hung = spawn(batcher, [1])
    await model.busy()
    with pytest.raises(EngineStalled, match=r"no forward pass finished within 0\.01 s"):
        await batcher.probe(9, 0.01)
    await queued(batcher, 0)
    model.gate.set()
    assert await hung == [2]


async def test_probe_reports_a_pass_that_fails(make: Make, model: Model) -> None:
    model.gate.set()
    with pytest.raises(EngineStalled, match="negative"):
        await make().probe(-1, 10)


async def test_queue_time_is_told_once_for_each_request(make: Make, model: Model) -> None:
    model.gate.set()
    seen: list[Pass] = []
    await make(observe=seen.append).submit([1] * 20)
    assert [len(one.waits_s) for one in seen] == [1, 0, 0]


def test_a_pass_holds_items_of_like_length() -> None:
    lengths = [10, 11, 12, 60, 62, 250]
    assert plan_pass(lengths, 0, 4096, 40) == range(3)
    assert plan_pass(lengths, 4, 4096, 40) == range(3, 5)
    assert plan_pass(lengths, 5, 4096, 40) == range(5, 6)


def test_padding_is_accepted_where_a_pass_is_dear() -> None:
    assert plan_pass([10, 11, 12, 60, 62, 250], 0, 4096, 10_000) == range(6)


@pytest.mark.parametrize("anchor", range(6))
def test_a_pass_always_holds_its_anchor(anchor: int) -> None:
    assert anchor in plan_pass([1, 2, 3, 500, 500, 900], anchor, 100, 8)
