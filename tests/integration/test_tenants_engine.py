"""What a tenant asks leaves no trace for another: neither in usage nor in the time it takes."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from benchmarks.cache_timing.trials import Asker, Trial, run_trials
from benchmarks.statistics import auc, auc_by_chance
from tests.integration.conftest import MODEL
from tests.integration.stack import Stack
from tests.integration.tenants import PATHS, Tenant, request

pytestmark = pytest.mark.engine

TRIALS = 36
CONTROL_TRIALS = 9
PREFIX_WORDS = 300


@pytest.fixture(scope="module")
def tenants(stack: Stack) -> Iterator[tuple[Tenant, Tenant]]:
    pair = Tenant(stack), Tenant(stack)
    yield pair
    for tenant in pair:
        tenant.close()


def fresh_prefix(*seed: object) -> str:
    rng = random.Random(repr(seed))
    return " ".join(rng.choices(("red", "green", "blue", "black", "white"), k=PREFIX_WORDS))


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("path", PATHS)
def test_a_prefix_is_cached_for_its_tenant_and_nobody_else(
    tenants: tuple[Tenant, Tenant], path: str, stream: bool
) -> None:
    one, other = tenants
    prefix = fresh_prefix(path, stream)
    first, again = (
        one.ask(path, request(path, prefix, 1, question), stream=stream) for question in "ab"
    )
    assert first.cached == 0
    assert again.cached >= 128
    stranger = other.ask(path, request(path, prefix, 1, "b"), stream=stream)
    assert stranger.input == again.input
    assert stranger.cached == 0
    assert other.ask(path, request(path, prefix, 1, "c"), stream=stream).cached >= 128


def test_time_to_first_token_does_not_tell_what_another_tenant_asked(
    tenants: tuple[Tenant, Tenant],
) -> None:
    """AUC of "this prefix was asked before" is at most 0.55, plus what chance does to so few.

    `auc_by_chance` is what a watcher who learns nothing stays below 999 times in 1000.
    Within a tenant the same measurement all but tells for certain.
    """
    one, other = (Asker(tenant.stack.url, tenant.key, MODEL) for tenant in tenants)
    seed = random.randrange(2**32)
    run_trials(one, other, 3, seed)
    within = run_trials(other, other, CONTROL_TRIALS, seed + 1)
    across = run_trials(one, other, TRIALS, seed + 2)
    one.close()
    other.close()
    assert min(trial.asked.cached_tokens for trial in within) > 0
    assert auc(*ttfts(within)) >= 0.9
    assert {trial.asked.cached_tokens for trial in across} == {0}
    asked, fresh = ttfts(across)
    assert auc(asked, fresh) - 0.55 <= auc_by_chance(asked, fresh) - 0.5


def ttfts(trials: list[Trial]) -> tuple[list[float], list[float]]:
    """Seconds for the prefixes asked before, and for the fresh ones."""
    return [t.asked.ttft_s for t in trials], [t.fresh.ttft_s for t in trials]
