"""Looks after all jobs, in one gateway at a time: what the store says should be is brought about.

    validating_files   its data is looked through
    queued             an attempt is started when it is its turn
    running            left alone, unless its trainer has fallen silent: queued again
    otherwise          whoever still works on it is let go

Nothing is remembered between two looks but what costs time to find out again, so that any
gateway can go on where another one ended.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress

from serving.finetuning.runner import JobRunner
from serving.finetuning.sharing import Sharing
from serving.finetuning.shop import Shop
from serving.finetuning.validate import validate
from serving.gateway.pool import Pool
from serving.store.errors import StoreUnavailable
from serving.store.jobs import Job
from serving.store.owners import Ownership
from serving.store.secret import new_id

OWNER_LEASE_S = 10.0
SWEEP_S = 60.0
_log = logging.getLogger(__name__)


class Reconciler:
    """The task of one process; `run` until cancelled."""

    def __init__(self, shop: Shop, runner: JobRunner, pools: Mapping[str, Pool]) -> None:
        self._shop = shop
        self._runner = runner
        self._config = shop.settings.config.finetuning
        self._sharing = Sharing(pools) if self._config.share == "pause" else None
        self._owner = Ownership(shop.store, "finetuning", new_id("reconciler"), OWNER_LEASE_S)
        self._validating: dict[str, asyncio.Task[None]] = {}
        self._swept_at = 0.0
        self._mine = False
        self._ask_at = 0.0

    async def run(self) -> None:
        """Look after the jobs for as long as this process is the one to do it."""
        try:
            while True:
                try:
                    if await self._is_mine():
                        await self.look()
                    elif self._sharing is not None:
                        self._sharing.forget()
                except StoreUnavailable as exc:
                    _log.warning("jobs are not looked after: %s", exc)
                except Exception:
                    _log.exception("looking after the jobs failed; it is tried again")
                await asyncio.sleep(self._config.poll_s)
        finally:
            for task in self._validating.values():
                task.cancel()
            await self._runner.close()
            with suppress(StoreUnavailable):
                self._owner.leave()

    async def _is_mine(self) -> bool:
        """Whether this process is the one; asked of the store a few times a lease."""
        now = time.monotonic()
        if now >= self._ask_at:
            self._mine = await asyncio.to_thread(self._owner.hold)
            self._ask_at = now + OWNER_LEASE_S / 4
        return self._mine

    async def look(self) -> None:
        """Once through all jobs."""
        jobs = await asyncio.to_thread(self._shop.jobs.open)
        for job in jobs:
            if job.status == "validating_files":
                self._validate(job)
            elif _is_silent(job, self._shop.jobs.now_us):
                await self._runner.drop(job.id)
                await asyncio.to_thread(
                    self._shop.jobs.interrupted,
                    job.id, job.attempt, max_crashes=self._config.max_crashes,
                )  # fmt: skip
        await self._dispatch(await asyncio.to_thread(self._shop.jobs.open))
        if time.monotonic() - self._swept_at > SWEEP_S:
            self._swept_at = time.monotonic()
            await asyncio.to_thread(self._shop.blobs.sweep)

    async def _dispatch(self, jobs: list[Job]) -> None:
        """Start what may start, let go of what is over."""
        held = await self._runner.held()
        living = {job.id for job in jobs if job.lease_until_us is not None}
        wanted = {job.id for job in jobs if job.status == "queued"}
        for id in held - living - wanted:
            await self._runner.drop(id)
        working = living | (held & wanted)
        busy = {job.model for job in jobs if job.id in working}
        if self._sharing is not None:
            await self._sharing.wake_all_but(busy)
        for job in turns(jobs, working):
            if len(working) >= self._config.max_parallel:
                return
            if self._sharing is not None and not await self._sharing.put_to_sleep(job.model):
                continue
            await self._runner.start(job.id)
            working.add(job.id)

    def _validate(self, job: Job) -> None:
        """One look through the data at a time."""
        self._validating = {id: t for id, t in self._validating.items() if not t.done()}
        if not self._validating:
            task = asyncio.create_task(self._validated(job))
            self._validating[job.id] = task

    async def _validated(self, job: Job) -> None:
        try:
            await validate(self._shop, job)
        except StoreUnavailable as exc:
            _log.warning("job %s could not be validated: %s", job.id, exc)
        except Exception:
            _log.exception("job %s could not be validated", job.id)
            error = {"code": "internal_error", "message": "the check failed", "param": None}
            await asyncio.to_thread(self._shop.jobs.refuse, job.id, error)


def turns(jobs: Sequence[Job], working: set[str]) -> list[Job]:
    """Queued jobs in the order in which they start: the oldest first, but the first of each tenant
    before anybody's second, those under way counted."""
    seen: Counter[str] = Counter(job.tenant_id for job in jobs if job.id in working)
    ranked: list[tuple[int, Job]] = []
    for job in jobs:
        if job.status == "queued" and job.id not in working:
            ranked.append((seen[job.tenant_id], job))
            seen[job.tenant_id] += 1
    return [job for _, job in sorted(ranked, key=lambda pair: (pair[0], pair[1].id))]


def _is_silent(job: Job, now_us: int) -> bool:
    return job.lease_until_us is not None and job.lease_until_us < now_us
