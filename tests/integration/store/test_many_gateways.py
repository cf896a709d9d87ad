"""Several gateway processes and threads against one budget."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from serving.store import tables
from serving.store.audit import SYSTEM
from serving.store.config import StoreConfig
from serving.store.database import Store
from serving.store.ledger import Ledger
from serving.store.ledger_types import Granted, Payer, Reserve, Settle, Tokens
from serving.store.ledger_writer import LedgerWriter
from serving.store.limits import LimitBook, Limits, LimitStore
from serving.store.opening import open_store
from tests.unit.store.conftest import Opener, copy_of_ready
from tests.unit.store.test_ledger import PRICES, check_sums

ROOT = Path(__file__).parents[3]
PROCESSES, ASKS, GRANTED = 4, 250, 100
PAYERS = [Payer("default", f"key_{n}", f"m{n % 2}") for n in range(3)]
COST = Tokens(embedding=4)


@pytest.fixture(params=["sqlite", "postgresql"])
def config(request: pytest.FixtureRequest) -> Iterator[StoreConfig]:
    """An empty store's configuration."""
    if request.param == "sqlite":
        yield StoreConfig()
        return
    with copy_of_ready(request.getfixturevalue("postgres")) as ready:
        yield ready


async def use(store: Store, gateway: str) -> int:
    """One gateway: asks at once, settles what it was granted; how many."""
    ledger = Ledger(store, PRICES, LimitBook(store, 60), gateway)
    writer = LedgerWriter(ledger, 30)
    writer.start()

    async def one(n: int) -> bool:
        payer = PAYERS[n % len(PAYERS)]
        outcome = await writer.reserve(Reserve(payer, COST))
        if not isinstance(outcome, Granted):
            return False
        await asyncio.sleep(0)
        writer.settle(Settle(payer, COST, "/v1/x", reservation=outcome.reservation))
        return True

    granted = await asyncio.gather(*(one(n) for n in range(ASKS)))
    writer.stop()
    assert writer.lost == 0
    return sum(granted)


def limit(store: Store) -> None:
    tokens = GRANTED * COST.embedding
    LimitStore(store).set("tenant:default", Limits(tokens_per_month=tokens), SYSTEM)
    loose = Limits(tokens_per_day=10**9, parallel_requests=10**6, tokens_per_minute=10**12)
    for scope in ("model:m0", "model:m1", "tenant_model:default/m0"):
        LimitStore(store).set(scope, loose, SYSTEM)


def check(store: Store, granted: list[int]) -> None:
    assert sum(granted) == GRANTED
    check_sums(store)
    with store.read() as connection:
        assert connection.execute(select(tables.reservations)).all() == []
        assert {row.parallel for row in connection.execute(select(tables.meters))} == {0}
        rows = connection.execute(select(tables.windows)).all()
    spent = [row.spent_tokens for row in rows if row.id.startswith("tenant:default@")]
    assert spent == [GRANTED * COST.embedding] * 2


def test_processes_grant_exactly_what_there_is(
    store: Store, config: StoreConfig, tmp_path: Path
) -> None:
    limit(store)
    task = json.dumps({"config": config.model_dump(), "folder": str(tmp_path / "store")})
    code = "from tests.integration.store.test_many_gateways import main; main()"
    workers = [
        subprocess.Popen([sys.executable, "-c", code, task, str(n)], cwd=ROOT,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for n in range(PROCESSES)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    granted = [int(worker.communicate("go\n", timeout=120)[0]) for worker in _told(workers)]
    check(store, granted)


def test_threads_grant_exactly_what_there_is(store: Store, opener: Opener) -> None:
    limit(store)
    stores = [opener() for _ in range(PROCESSES)]
    granted: list[int] = []

    def work(number: int) -> None:
        granted.append(asyncio.run(use(stores[number], f"gateway-{number}")))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(PROCESSES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(store, granted)


def test_a_killed_gateway_loses_no_booking_and_its_holds_expire(
    store: Store, config: StoreConfig, tmp_path: Path
) -> None:
    """Killed at a random moment of its work: what it was told is booked, is booked."""
    limit(store)
    task = json.dumps({"config": config.model_dump(), "folder": str(tmp_path / "store")})
    code = "from tests.integration.store.test_many_gateways import die; die()"
    worker = subprocess.run([sys.executable, "-c", code, task], cwd=ROOT, check=False,
                            capture_output=True, text=True, timeout=120)  # fmt: skip
    assert worker.returncode == -9, worker.stderr
    told = [line.split() for line in worker.stdout.splitlines()]
    with store.read() as connection:
        booked = {row.id for row in connection.execute(select(tables.usage.c.id))}
        held = {row.id for row in connection.execute(select(tables.reservations.c.id))}
    assert booked == {id for what, id in told if what == "settled"}
    assert held == {id for what, id in told if what == "granted"} - booked
    survivor = Ledger(store, PRICES, LimitBook(store, 60), "survivor")
    survivor.renew(30)
    assert survivor.expire() == 0
    later = store.now_us() + 31_000_000
    store.now_us = lambda: later  # type: ignore[method-assign]
    survivor.renew(30)
    assert survivor.expire() == len(held)
    with store.read() as connection:
        assert all(row.held_tokens == 0 for row in connection.execute(select(tables.windows)))
    check_sums(store)


def _told(workers: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    for worker in workers[:-1]:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    return list(reversed(workers))


def main() -> None:
    """A gateway process: says `ready`, waits for a line, prints what it was granted."""
    task = json.loads(sys.argv[1])
    store = open_store(StoreConfig(**task["config"]), Path(task["folder"]))
    print("ready", flush=True)
    sys.stdin.readline()
    print(asyncio.run(use(store, f"process-{sys.argv[2]}")), flush=True)
    store.close()


def die() -> None:
    """A gateway that reports what it was granted and what it settled, and is killed."""
    import os

    task = json.loads(sys.argv[1])
    store = open_store(StoreConfig(**task["config"]), Path(task["folder"]))
    ledger = Ledger(store, PRICES, LimitBook(store, 60), "dead")
    ledger.renew(30)
    for n in range(20):
        asks = [Reserve(PAYERS[0], COST) for _ in range(3)]
        ledger.apply(asks)
        for ask in asks:
            print("granted", ask.id)
        if n % 2:
            ledger.apply([Settle(PAYERS[0], COST, "/x", reservation=asks[0].id)])
            print("settled", asks[0].id)
    sys.stdout.flush()
    os.kill(os.getpid(), 9)
