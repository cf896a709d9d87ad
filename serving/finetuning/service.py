"""Fine-tuning as a gateway has it: the store behind its routes, and the task in its background."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from serving.finetuning.reconcile import Reconciler
from serving.finetuning.runner import JobRunner
from serving.finetuning.shop import Shop
from serving.gateway.pool import Pool


@dataclass(frozen=True)
class Finetuning:
    """Files, jobs and registry of one gateway process."""

    shop: Shop
    runner: JobRunner

    @asynccontextmanager
    async def running(self, pools: Mapping[str, Pool]) -> AsyncIterator[None]:
        """While it lasts, this process looks after the jobs, unless another one does."""
        if not self.shop.settings.config.finetuning.enabled:
            yield
            return
        task = asyncio.create_task(Reconciler(self.shop, self.runner, pools).run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
